"""What an export may replace: an earlier export, and nothing else."""

import json

import pytest

from emsr_fast.errors import UsageError, VolumeError
from emsr_fast.export.output import checked_names

onnx = pytest.importorskip("onnx")


def write_onnx(path, producer):
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value], [])
    onnx.save(onnx.helper.make_model(graph, producer_name=producer), path)


@pytest.fixture
def model(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    return tmp_path / "model.safetensors"


def test_an_earlier_onnx_model_is_replaced_on_request(tmp_path, model):
    output = tmp_path / "a.onnx"
    write_onnx(output, "emsr_fast")
    with pytest.raises(VolumeError, match="exists; choose another name or give `overwrite=True`"):
        checked_names(output, "onnx", overwrite=False, model=model)
    ((final, check),) = checked_names(output, "onnx", overwrite=True, model=model)
    assert check(final) == output


@pytest.mark.parametrize("content", ["another program", "a photo", "text"])
def test_what_another_program_wrote_is_kept(tmp_path, model, content):
    output = tmp_path / "a.onnx"
    if content == "another program":
        write_onnx(output, "pytorch")
    else:
        output.write_bytes(b"\xff\xd8\xff\xe0\0\x10JFIF" if content == "a photo" else b"years of work")
    with pytest.raises(VolumeError, match="is a file that is not an ONNX model of emsr_fast: not overwritten"):
        checked_names(output, "onnx", overwrite=True, model=model)


def test_an_engine_is_replaced_with_its_description(tmp_path, model):
    output, beside = tmp_path / "a.engine", tmp_path / "a.engine.json"
    output.write_bytes(b"engine")
    with pytest.raises(VolumeError, match="not an engine with its description beside it: not overwritten"):
        checked_names(output, "trt", overwrite=True, model=model)
    beside.write_text(json.dumps({"emsr_fast": "0.1.0", "format": "trt"}))
    names = [place.name for place, _ in checked_names(output, "trt", overwrite=True, model=model)]
    assert names == ["a.engine.json", "a.engine"]


def test_the_model_itself_is_never_replaced(tmp_path, model):
    for kind in ("onnx", "trt"):
        with pytest.raises(UsageError, match="is the input itself"):
            checked_names(model, kind, overwrite=True, model=model)

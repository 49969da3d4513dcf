"""The exported graph computes what the network computes, in the precision that was asked for."""

import json
import os
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

import emsr_fast
from emsr_fast import Emsr, EmsrConfig, ModelCard, load_model
from emsr_fast.convert.accuracy import in_pytorch, real_tiles, tolerance
from emsr_fast.convert.graph import FoldedUpsample, Graph
from emsr_fast.convert.onnx_model import check_against_pytorch, cpu_session, to_onnx
from emsr_fast.convert.shapes import Shapes, parse_size
from emsr_fast.errors import BackendError, UsageError, VolumeError
from emsr_fast.export.job import export
from emsr_fast.reference.upsample_to_image import upsample_to_image

HALF = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def tiny(**fields):
    torch.manual_seed(0)
    return Emsr(EmsrConfig(features=16, blocks=1, heads=4, **fields)).eval()


@pytest.fixture(scope="module")
def shipped():
    """The default model and its ONNX model for any size."""
    model = load_model(device="cpu")
    return model, to_onnx(model)


@pytest.mark.parametrize("size", [(1, 32, 32), (3, 32, 32), (1, 61, 75), (3, 128, 96), (1, 340, 512)], ids=str)
def test_onnxruntime_gives_what_pytorch_gives(shipped, size):
    model, exported = shipped
    tiles = np.resize(real_tiles(*size[1:]), (size[0], 1, *size[1:]))
    got = cpu_session(exported).run(None, {"lr": tiles})[0]
    with torch.inference_mode():
        wanted = model(torch.from_numpy(tiles)).numpy()
    assert got.shape == wanted.shape
    assert tolerance(model, "fp32").why_not(np.abs(got - wanted)) is None


def test_the_card_travels_and_this_machine_does_not(shipped):
    model, exported = shipped
    loaded = onnx.load_from_string(exported)
    onnx.checker.check_model(loaded, full_check=True)
    metadata = {entry.key: entry.value for entry in loaded.metadata_props}
    assert ModelCard.model_validate_json(metadata["emsr_card"]) == model.card
    assert (metadata["window_fit"], metadata["scale"], metadata["precision"]) == ("pad", "3", "fp32")
    assert loaded.opset_import[0].version >= 20
    for place in (Path(emsr_fast.__file__).parents[1], Path(torch.__file__).parents[1]):
        assert str(place).encode() not in exported


def dtypes_of(exported):
    """Return {kind of node: the types of its outputs}, as ONNX's own inference finds them."""
    loaded = onnx.shape_inference.infer_shapes(onnx.load_from_string(exported), strict_mode=True)
    types = {value.name: value.type.tensor_type.elem_type for value in (*loaded.graph.value_info, *loaded.graph.output)}
    found = defaultdict(set)
    for node in loaded.graph.node:
        found[node.op_type].add(types[node.output[0]])
    return loaded, found


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_precision_is_written_into_the_graph(precision):
    model = tiny()
    exported = to_onnx(model, precision, Shapes.only(1, 30, 36))
    loaded, found = dtypes_of(exported)
    assert found["LayerNormalization"] == found["Softmax"] == {TensorProto.FLOAT}
    assert found["MatMul"] == found["Relu"] == found["Sigmoid"] == {HALF[precision]}
    for end in (loaded.graph.input[0], loaded.graph.output[0]):
        assert end.type.tensor_type.elem_type == TensorProto.FLOAT
    # every trained convolution is half; the filters of the details and the sum at the end are float32
    halves = {i.name for i in loaded.graph.initializer if i.data_type == HALF[precision] and len(i.dims) == 4}
    trained = sum(1 for parameter in model.parameters() if parameter.dim() == 4)
    assert len(halves) == trained - 1  # two are folded into one
    lines = check_against_pytorch(exported, model, precision, Shapes.only(1, 30, 36))
    assert lines[0].startswith("1 x 30x36 px: largest difference ")


@pytest.mark.parametrize("fit", ["pad", "resize"])
def test_window_fit_is_kept_at_every_size(fit):
    model, other = tiny(window_fit=fit), tiny(window_fit="resize" if fit == "pad" else "pad")
    # fixed sizes here, since the shipped model shows "pad" at any
    shapes = Shapes.only(1, 37, 41) if fit == "pad" else Shapes((1, 5, 6), (1, 37, 41), (2, 64, 64))
    exported = to_onnx(model, "fp32", shapes)
    check_against_pytorch(exported, model, "fp32", shapes)
    with pytest.raises(BackendError, match="differs from PyTorch on"):
        check_against_pytorch(exported, other, "fp32", shapes)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_wrong_weight_is_found_before_anybody_gets_the_model(precision):
    model, shapes = tiny(), Shapes.only(1, 32, 32)
    damaged = onnx.load_from_string(to_onnx(model, precision, shapes))
    weight = max(damaged.graph.initializer, key=lambda i: np.prod(i.dims))
    values = numpy_helper.to_array(weight).copy()
    values[0] *= 2
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    with pytest.raises(BackendError, match="where rounding explains"):
        check_against_pytorch(damaged.SerializeToString(), model, precision, shapes)


@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 2), (7, 4)])
def test_the_folded_upsampler_is_exact_up_to_the_border(scale, size):
    torch.manual_seed(0)
    x = torch.randn(2, 8, *size, dtype=torch.float64)
    up, last = torch.randn(scale * scale * 8, 8, 3, 3).double(), torch.randn(1, 8, 3, 3).double()
    folded = FoldedUpsample(up, last, scale, torch.float32)
    exact = upsample_to_image(x, up, last, scale)
    plain = upsample_to_image(x.float(), up.float(), last.float(), scale)
    assert (folded(x.float()) - exact).abs().max() <= 2 * (plain - exact).abs().max() + 1e-5


@pytest.mark.parametrize("scale", [2, 4])
def test_other_scales_have_graphs_too(scale):
    model = tiny(scale=scale)
    tiles = real_tiles(26, 33)
    with torch.inference_mode():
        got = Graph(model)(torch.from_numpy(tiles)).numpy()
    assert tolerance(model, "fp32").why_not(np.abs(got - in_pytorch(model, tiles))) is None


def test_half_precision_is_seen_where_float32_was_promised():
    model = tiny()
    exported = to_onnx(model, "fp16", Shapes.only(1, 96, 96))
    with pytest.raises(BackendError, match="differs from PyTorch"):
        check_against_pytorch(exported, model, "fp32", Shapes.only(1, 96, 96))


def test_sizes_that_contradict_each_other_are_refused():
    with pytest.raises(UsageError, match=r"height is 64 at least, 32 at best"):
        Shapes((1, 64, 64), (1, 32, 32), (1, 64, 64))
    with pytest.raises(UsageError, match=r"`best` is '64'.*320x320"):
        parse_size("64", "`best`")
    with pytest.raises(UsageError, match="at least 4 px a side"):
        to_onnx(tiny(window_fit="resize"), "fp32", Shapes.only(1, 3, 8))
    with pytest.raises(UsageError, match="`precision` is 'int8'"):
        to_onnx(tiny(), "int8")
    assert Shapes.from_json(json.loads(json.dumps(Shapes.only(2, 3, 4).as_json()))) == Shapes.only(2, 3, 4)


def test_an_unknown_window_fit_is_one_clear_line(tmp_path):
    with pytest.raises(UsageError, match="`window_fit` is 'x'; give pad or resize"):
        export(tmp_path / "m.onnx", window_fit="x")


def test_a_folder_that_cannot_be_written_is_found_before_the_work(tmp_path, monkeypatch):
    # who runs the tests may write anywhere
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    said = []
    with pytest.raises(VolumeError, match=f"{tmp_path} is not writable; choose another place"):
        export(tmp_path / "m.onnx", say=said.append)
    assert not said


def test_missing_packages_are_named_with_the_extra(monkeypatch):
    monkeypatch.setattr("emsr_fast.convert.onnx_model.PACKAGES", ("onnx", "no_such_package"))
    with pytest.raises(BackendError, match=r"no_such_package not installed: .*pip install .*onnxruntime"):
        to_onnx(tiny())

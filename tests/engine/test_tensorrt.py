"""TensorRT as far as a machine without a GPU takes it: real engines are built, and nothing pretends to run them."""

import json

import pytest
import torch

from emsr_fast import Emsr, EmsrConfig
from emsr_fast.cli import main
from emsr_fast.convert import tensorrt_builder
from emsr_fast.convert.onnx_model import to_onnx
from emsr_fast.convert.shapes import Shapes
from emsr_fast.convert.tensorrt_builder import build, load_provider
from emsr_fast.engine.tensorrt_engine import inspected_layers
from emsr_fast.errors import BackendError, UsageError

FIXED = Shapes.only(1, 64, 64)
VARYING = Shapes((1, 61, 61), (2, 64, 64), (2, 64, 64))
WORDS = {"fp32": "FLOAT", "fp16": "HALF", "bf16": "BF16"}


@pytest.fixture(scope="module")
def rtx():
    if reason := tensorrt_builder.why_not_installed("tensorrt-rtx"):
        pytest.skip(reason)
    return load_provider("tensorrt-rtx")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Emsr(EmsrConfig(features=16, blocks=1, heads=4)).eval()


@pytest.fixture(scope="module")
def onnx(model):
    return to_onnx(model, "fp32", FIXED)


@pytest.mark.parametrize(
    ("precision", "shapes"), [("fp32", FIXED), ("fp16", FIXED), ("bf16", FIXED), ("fp16", VARYING)], ids=str
)
def test_engines_build_with_the_precision_that_was_asked_for(rtx, model, precision, shapes):
    built = build(rtx, to_onnx(model, precision, shapes), shapes)
    assert len(built.engine) > 100_000
    asked = WORDS[precision]
    # 8 filters for the details of each of two images, and the sum that ends the upsampler
    convolutions = {"FLOAT": 17, asked: 30} if asked != "FLOAT" else {"FLOAT": 47}
    assert built.layers == {
        **{f"CONVOLUTION {dtype}": count for dtype, count in convolutions.items()},
        f"MATRIX_MULTIPLY {asked}": 6,
        "NORMALIZATION FLOAT": 2,
        "SOFTMAX FLOAT": 1,
    }


def test_tf32_is_off_and_details_are_kept(rtx, onnx, monkeypatch):
    seen = []
    monkeypatch.setattr(tensorrt_builder, "_in_thread", lambda work, *rest: seen.append(work.__closure__) or work())
    build(rtx, onnx, FIXED)
    (config,) = [c.cell_contents for c in seen[0] if isinstance(c.cell_contents, rtx.module.IBuilderConfig)]
    assert not config.get_flag(rtx.module.BuilderFlag.TF32)
    assert config.profiling_verbosity == rtx.module.ProfilingVerbosity.DETAILED


def test_progress_is_told_with_what_the_last_build_took(rtx, onnx, monkeypatch):
    monkeypatch.setattr(tensorrt_builder, "_LINE_EVERY_S", 0.02)
    lines = []
    build(rtx, onnx, FIXED, expected_s=7, say=lines.append)
    assert any("the last one like it took 7 s: building engine " in line for line in lines)


def test_an_interrupted_build_stops(rtx, onnx, monkeypatch):
    class StopError(Exception):
        pass

    def stop(line):
        raise StopError

    monkeypatch.setattr(tensorrt_builder, "_LINE_EVERY_S", 0.01)
    with pytest.raises(StopError):
        build(rtx, onnx, FIXED, say=stop)


def test_what_tensorrt_refuses_is_one_line_in_its_words(rtx, onnx):
    with pytest.raises(BackendError, match=r"cannot read the ONNX model: .*Failed to parse"):
        build(rtx, onnx[:1000], FIXED)
    with pytest.raises(BackendError, match=r"could not build the engine for 32x32 px \(.*[Dd]imension"):
        build(rtx, onnx, Shapes.only(1, 32, 32))


def test_the_runtime_speaks_to_names_that_this_release_has(rtx):
    trt = rtx.module
    for owner, names in {
        trt.Runtime: ("deserialize_cuda_engine",),
        trt.ICudaEngine: ("create_execution_context", "create_engine_inspector", "create_runtime_config"),
        trt.IExecutionContext: (
            *("set_input_shape", "set_tensor_address", "execute_async_v3", "set_optimization_profile_async"),
        ),
        trt.IRuntimeConfig: (
            *("dynamic_shapes_kernel_specialization_strategy", "cuda_graph_strategy"),
            *("create_runtime_cache", "set_runtime_cache"),
        ),
        trt.IRuntimeCache: ("serialize", "deserialize"),
        trt.DynamicShapesKernelSpecializationStrategy: ("EAGER",),
        trt.CudaGraphStrategy: ("WHOLE_GRAPH_CAPTURE",),
        trt.EngineInspector: ("get_engine_information",),
        trt.LayerInformationFormat: ("JSON",),
    }.items():
        for name in names:
            assert hasattr(owner, name), f"{owner.__name__}.{name}"


def test_a_provider_is_chosen_by_what_it_supports(monkeypatch):
    monkeypatch.setattr(
        tensorrt_builder, "why_not_installed", lambda name: None if name == "tensorrt-rtx" else "not there"
    )
    monkeypatch.setattr("importlib.import_module", lambda name: type("FakeProvider", (), {"__version__": name}))
    assert load_provider("auto", (8, 9)).name == "tensorrt-rtx"
    assert load_provider("auto", None).name == "tensorrt-rtx"
    with pytest.raises(BackendError, match=r"not there; tensorrt-rtx is not documented for compute capability 9\.0"):
        load_provider("auto", (9, 0))
    assert load_provider("tensorrt-rtx", (9, 0)).name == "tensorrt-rtx"
    monkeypatch.setattr(tensorrt_builder, "why_not_installed", lambda name: None)
    assert load_provider("auto", (9, 0)).name == load_provider("auto", (8, 9)).name == "tensorrt"
    with pytest.raises(UsageError, match="`provider` is 'rt'"):
        load_provider("rt")


def test_what_the_inspector_says_is_counted_by_precision():
    # as TensorRT's documentation shows it
    output = {"Name": "x", "Location": "Device", "Dimensions": [1, 64, 64, 64]}
    layers = [
        {"Name": "a", "LayerType": "CaskConvolution", "Outputs": [{**output, "Format/Datatype": "Half"}]},
        {
            "Name": "b",
            "LayerType": "CaskConvolution",
            "Outputs": [{**output, "Format/Datatype": "Row major FP16"}],
        },
        {"Name": "c", "LayerType": "kgen", "Outputs": [{**output, "Format/Datatype": "Float"}]},
        {"Name": "d", "LayerType": "kgen", "Outputs": [{**output, "Format/Datatype": "BFloat16"}]},
        {"Name": "e", "LayerType": "shape", "Outputs": [{**output, "Format/Datatype": "Int64"}]},
        {"Name": "f", "LayerType": "NoOp", "Outputs": []},
    ]
    told = inspected_layers(json.dumps({"Layers": layers, "Bindings": ["lr", "hr"]}))
    assert told == {"CaskConvolution fp16": 2, "kgen bf16": 1, "kgen fp32": 1}
    assert inspected_layers(json.dumps({"Layers": ["only", "names"]})) == inspected_layers("") == {}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("option", "kept"),
    [(["--trt"], ""), (["--engine", "trt", "--precision=fp16"], ""),
     (["--engine", "trt", "--slices", "0:2"], " --slices 0:2"), (["--trt", "--device", "cpu"], " --device cpu")],
)  # fmt: skip
def test_without_a_gpu_one_line_names_what_is_missing_and_what_works(stack, tmp_path, capsys, option, kept):
    output = tmp_path / "a b.tif"
    assert main(["infer", str(stack), "-o", str(output), *option]) == 5
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith("error: engine trt cannot run here: TensorRT needs an NVIDIA GPU, and ")
    assert line.endswith(f"; this works: emsr-fast infer {stack} -o '{output}'{kept} --engine torch")
    assert not list(tmp_path.iterdir())


def test_export_writes_an_engine_with_its_card_beside_it(rtx, tmp_path, capsys):
    file = tmp_path / "small.engine"
    command = ["export", "-o", str(file), "--format", "trt", "--opt", "32x32", "--provider", "tensorrt-rtx", "--json"]
    assert main(command) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["bytes"] == file.stat().st_size > 100_000
    card = json.loads((tmp_path / "small.engine.json").read_text())
    assert card["card"]["name"] == "emsr-x3-small"
    assert card["precision"] == "fp16"
    assert card["shapes"]["best"] == [1, 32, 32]
    if not torch.cuda.is_available():
        assert card["truth_test"] == {"passed": False, "reason": "not tested: built on a machine without a GPU"}
        assert "truth   not tested: there is no GPU here" in shown.err
    before = file.read_bytes()
    assert main(command) == 3
    assert "exists; choose another name or give --overwrite" in capsys.readouterr().err
    assert file.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.engine", "small.engine.json"]


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--format", "tflite"], 2, "--format is 'tflite'"),
        (["--precision", "int4"], 2, "--precision is 'int4'"),
        (["--opt", "64"], 2, "--opt is '64'"),
        (["--min", "64x64", "--max", "32x32"], 2, "height is 64 at least"),
        (["--format", "trt", "--provider", "cudnn"], 2, "--provider is 'cudnn'"),
        (["--model", "nonsense"], 3, "nonsense"),
    ],
)
def test_bad_export_arguments_are_one_line(tmp_path, capsys, options, code, words):
    assert main(["export", "-o", str(tmp_path / "a"), *options]) == code
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())
    assert main(["export", "-o", str(tmp_path / "no" / "a")]) == 3

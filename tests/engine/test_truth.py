"""The truth test refuses engines whose pixels are not the network's, and lets sound ones through."""

import numpy as np
import pytest
import torch

from emsr_fast import Emsr, EmsrConfig
from emsr_fast.convert.accuracy import in_pytorch, real_tiles
from emsr_fast.convert.graph import Graph
from emsr_fast.convert.onnx_model import to_onnx
from emsr_fast.convert.shapes import Shapes
from emsr_fast.engine import cache
from emsr_fast.engine.factory import judged, open_engine
from emsr_fast.engine.onnxruntime_engine import OnnxRuntimeEngine
from emsr_fast.engine.truth import truth_test
from emsr_fast.errors import BackendError

SHAPES = Shapes.only(1, 96, 96)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Emsr(EmsrConfig(features=16, blocks=1, heads=4)).eval()


class FakeProvider:
    """PyTorch's own pixels with a fault put in: for the truth test's logic only."""

    name, scale, precision, device, shapes = "fake", 3, "fp32", "cuda:0", SHAPES

    def __init__(self, model, fault=lambda pixels: pixels, layers=None, **fields):
        self.model, self.fault, self.told, self.calls = model, fault, layers or {"CONV fp32": 1}, 0
        vars(self).update(fields)

    def run(self, batch):
        self.calls += 1
        return self.fault(in_pytorch(self.model, batch))

    def layers(self):
        return self.told


def shifted(pixels):
    return np.roll(pixels, 1, axis=3)


def third_row_wrong(pixels):
    pixels = pixels.copy()
    if len(pixels) > 2:
        pixels[2] = pixels[2] * 1.001
    return pixels


def one_nan(pixels):
    pixels = pixels.copy()
    pixels[0, 0, 0, 0] = np.nan
    return pixels


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (shifted, "tiles of 96x96 px: largest difference"),
        (lambda pixels: pixels + 2e-6, "where rounding explains"),
        (third_row_wrong, "a batch of identical tiles of 96x96 px"),
        (one_nan, "largest difference nan"),
        (lambda pixels: pixels[:, :, ::2], "shape"),
        (lambda pixels: np.zeros_like(pixels), "tiles of 96x96"),
    ],
)
def test_wrong_pixels_are_refused(model, fault, reason):
    result = truth_test(FakeProvider(model, fault), model, {})
    assert not result.passed
    assert reason in result.reason


def test_pytorchs_own_pixels_pass(model):
    result = truth_test(FakeProvider(model), model, {"CONV fp32": 3})
    assert result.passed, result.reason
    assert result.largest == result.rows_differ == 0
    assert "passed on 96x96 px" in str(result)


def test_a_layer_in_a_lower_precision_than_asked_is_refused(model):
    result = truth_test(FakeProvider(model), model, {"CONVOLUTION fp32": 3, "CONVOLUTION fp16": 1})
    assert not result.passed
    assert "layers compute in fp16, asked was fp32" in result.reason


@pytest.mark.parametrize(("really", "passes"), [("fp16", True), ("bf16", False)])
def test_bfloat16_does_not_pass_for_float16(model, really, passes):
    # real rounding, by PyTorch where it is quick; float16 is the onnxruntime test's
    graph = Graph(model, "bf16" if really == "bf16" else "fp32")

    class Rounding(FakeProvider):
        def run(self, batch):
            with torch.inference_mode():
                return graph(torch.from_numpy(batch)).numpy()

    result = truth_test(Rounding(model, precision="fp16"), model, {})
    assert result.passed is passes, result.reason


def test_weights_of_eleven_bits_do_not_pass_for_float32(model):
    # what TF32 does to them
    rounded = Emsr(model.config)
    rounded.load_state_dict({name: t.half().float() for name, t in model.state_dict().items()})
    result = truth_test(FakeProvider(rounded.eval()), model, {})
    assert not result.passed


def test_onnxruntime_passes_and_says_what_its_layers_compute_in(model):
    engine = OnnxRuntimeEngine(to_onnx(model, "fp16"), scale=3, precision="fp16", device="cpu")
    layers = engine.layers()
    assert sum(count for kind, count in layers.items() if kind.startswith("Softmax")) == 1
    result = truth_test(engine, model, layers)
    assert result.passed, result.reason
    assert result.layers == layers
    engine.precision = "fp32"
    assert not truth_test(engine, model, {}).passed


def make():
    return b"payload", {}


def test_the_result_is_kept_with_the_engine_and_not_asked_again(model):
    entry, _ = cache.fetch("engine", {"a": 1}, make)
    engine, lines = FakeProvider(model), []
    first = judged(engine, model, entry, refuse=True, say=lines.append)
    calls = engine.calls
    entry, _ = cache.fetch("engine", {"a": 1}, make)
    second = judged(engine, model, entry, refuse=True, say=lines.append)
    assert first == second
    assert engine.calls == calls > 0
    assert lines[0].startswith("truth   passed on 96x96 px")
    assert lines[1].startswith("truth   passed on 20")


def test_a_failure_is_refused_with_exit_5_every_time_unless_told_otherwise(model):
    entry, _ = cache.fetch("engine", {"a": 1}, make)
    engine = FakeProvider(model, shifted)
    for _ in range(2):
        with pytest.raises(BackendError, match=r"failed its truth test: .*`truth_test=False`") as raised:
            judged(engine, model, entry, refuse=True, say=lambda line: None)
        assert raised.value.exit_code == 5
    assert cache.entries()[0].facts["truth"]["fake"]["passed"] is False
    told = judged(engine, model, entry, refuse=False, say=lambda line: None)
    assert told == {"passed": False, "reason": "not tested (`truth_test=False`)"}


def test_an_engine_opens_tested_and_the_second_time_at_once(model):
    lines = []
    for _ in range(2):
        engine, truth = open_engine("onnx", model, shapes=SHAPES, say=lines.append)
        assert truth["passed"]
    assert [line.split()[0] for line in lines] == ["build", "truth", "truth"]
    tiles = real_tiles(40, 47)
    assert np.abs(engine.run(tiles) - in_pytorch(model, tiles)).max() <= truth["largest_allowed"]

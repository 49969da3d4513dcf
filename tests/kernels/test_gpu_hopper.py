"""The convolutions for Hopper's tensor cores on a GPU: exactness, strides, capture, streams, a changed weight."""

import pytest
import torch

from emsr_fast import BackendError, Emsr, EmsrConfig, _backends, conv3x3, residual_block
from emsr_fast.ops import OPERATORS

pytestmark = pytest.mark.cuda
HALVES = [torch.float16, torch.bfloat16]
SIZES = [(1, 1), (1, 5), (7, 64), (41, 129), (130, 341), (600, 700)]
EPILOGUES = ["none", "relu", "leaky_relu+residual", "none+gate"]


@pytest.fixture(autouse=True)
def hopper():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if reason := _backends.why_not_here("cuda"):
        pytest.skip(reason)
    if (capability := torch.cuda.get_device_capability()) != (9, 0):
        with pytest.raises(BackendError, match=r"needs compute capability 9\.0"):
            run(*arguments((1, 1), "none", torch.float16))
        pytest.skip(f"needs compute capability 9.0, this GPU has {capability}")


def arguments(size, epilogue, dtype):
    """Return image, weight, and the keywords of an epilogue, channels last."""
    torch.manual_seed(0)
    activation, _, second = epilogue.partition("+")

    def features():
        return torch.randn(2, *size, 64, device="cuda", dtype=dtype).permute(0, 3, 1, 2)

    weight = (torch.randn(64, 64, 3, 3, device="cuda") / 24).to(dtype, memory_format=torch.channels_last)
    return features(), weight, {"activation": activation, **({second: features()} if second else {})}


def run(x, weight, others, backend="cuda"):
    with torch.inference_mode():
        return conv3x3(x, weight, **others, backend=backend)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("epilogue", EPILOGUES)
def test_matches_the_definition(epilogue, size, dtype):
    x, weight, others = arguments(size, epilogue, dtype)
    exact = run(
        x.double(), weight.double(), {k: getattr(v, "double", lambda v=v: v)() for k, v in others.items()}, "reference"
    )
    plain = run(x, weight, others, "reference")
    rounding = torch.finfo(dtype).eps / 2 * exact.abs().max()
    assert (run(x, weight, others) - exact).abs().max() <= 2 * (plain - exact).abs().max() + rounding


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("size", [*SIZES, (9, 134), (300, 269)], ids=str)
def test_residual_block_matches_the_definition(size, dtype):
    x, first, _ = arguments(size, "none", dtype)
    second = first.flip(0)
    with torch.inference_mode():
        exact = residual_block(x.double(), first.double(), second.double(), backend="reference")
        plain = residual_block(x, first, second, backend="reference")
        out = residual_block(x, first, second, backend="cuda")
    rounding = torch.finfo(dtype).eps / 2 * exact.abs().max()
    assert (out - exact).abs().max() <= 2 * (plain - exact).abs().max() + rounding


def test_residual_block_registration_capture_and_compile():
    x, first, _ = arguments((30, 150), "none", torch.float16)
    second = first.flip(0)
    torch.library.opcheck(torch.ops.emsr_fast.residual_block.default, (x, first, second, "cuda"))

    def block(t):
        return residual_block(t, first, second, backend="cuda")

    with torch.inference_mode():
        expected = block(x)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = block(x)
        out.fill_(float("nan"))
        graph.replay()
        assert torch.equal(out, expected)
        compiled = torch.compile(block, fullgraph=True, mode="reduce-overhead")
        for _ in range(3):
            assert torch.equal(compiled(x), expected)


def test_a_network_on_request():
    torch.manual_seed(0)
    model = Emsr(EmsrConfig()).eval().cuda()
    y = torch.rand(1, 1, 96, 140, device="cuda")
    with torch.inference_mode():
        exact = model.double()(y.double())
        half = model.half().to(memory_format=torch.channels_last)
        errors = {}
        for backends in ("reference", "cuda,triton,reference"):
            with _backends.use_backend(backends):
                errors[backends] = (half(y.half()) - exact).abs().max()
    assert errors["cuda,triton,reference"] <= 2 * errors["reference"]


def test_takes_any_strides_and_weights():
    x, weight, others = arguments((30, 150), "none+gate", torch.float16)
    expected = run(x, weight, others)
    wide = torch.full((2, 128, 60, 151), float("nan"), device="cuda", dtype=torch.float16)
    wide[:, 1:65, ::2, 1:] = x
    for view in (wide[:, 1:65, ::2, 1:], wide.contiguous(memory_format=torch.channels_last)[:, 1:65, ::2, 1:]):
        assert torch.equal(run(view, weight.contiguous(), others), expected)


def test_a_replayed_graph_sees_a_changed_weight_and_allocates_nothing():
    x, weight, others = arguments((130, 341), "relu+residual", torch.float16)
    run(x, weight, others)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = run(x, weight, others)
    weight.mul_(-0.5)
    out.fill_(float("nan"))
    before = torch.cuda.memory_stats()["allocation.all.allocated"]
    graph.replay()
    assert torch.cuda.memory_stats()["allocation.all.allocated"] == before
    assert torch.equal(out, run(x, weight, others))


def test_two_streams_do_not_disturb_each_other():
    x, weight, others = arguments((130, 341), "none+gate", torch.bfloat16)
    expected = run(x, weight, others)
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in range(2)]
    results = []
    for _ in range(20):
        for stream in streams:
            with torch.cuda.stream(stream):
                results.append(run(x, weight, others))
    torch.cuda.synchronize()
    assert all(torch.equal(result, expected) for result in results)


def test_registration_and_compile():
    x, weight, others = arguments((6, 9), "relu", torch.float16)
    torch.library.opcheck(torch.ops.emsr_fast.conv3x3.default, (x, weight, "relu", None, None, "cuda"))
    compiled = torch.compile(lambda t: run(t, weight, others), fullgraph=True, mode="reduce-overhead")
    for _ in range(3):
        assert torch.equal(compiled(x), run(x, weight, others))


def test_auto_leaves_it_alone_and_a_preference_takes_it():
    x, weight, _ = arguments((6, 9), "none", torch.float16)
    convolution, call = OPERATORS["conv3x3"], (x, weight, "none", None, None)
    assert convolution.choose(*call) != "cuda"
    with _backends.use_backend("cuda,triton,reference"):
        assert convolution.choose(*call) == "cuda"
        assert torch.equal(run(x, weight, {}, "auto"), run(x, weight, {}))

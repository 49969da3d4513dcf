"""window_attention and atrous_details on a GPU: exactness, streams, graph capture, alignment. Skipped without one."""

import pytest
import torch

from emsr_fast import BackendError, _backends, atrous_details, window_attention
from emsr_fast.reference import atrous as atrous_reference
from emsr_fast.reference import window_attention as reference

pytestmark = pytest.mark.cuda
BACKENDS = ["cuda", "triton"]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
OP = torch.ops.emsr_fast.window_attention.default


@pytest.fixture(autouse=True)
def exact_products():
    """Keep TF32 out of the plain float32 products that the kernels are measured by."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


def skip_unless_runnable(backend):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if reason := _backends.why_not(backend, torch.empty(1, 16, 4, 4, device="cuda")):
        pytest.skip(reason)


def block(channels, shape, dtype, hidden=None):
    """Return features (B, C, H, W), channels last, and the block's parameters, on the GPU."""
    torch.manual_seed(0)
    c, hidden = channels, hidden or 2 * channels
    shapes = ((c,), (c,), (3 * c, c), (c, c), (c,), (c,), (c,), (hidden, c), (hidden,), (c, hidden), (c,))
    tensors = [torch.randn(s) * 0.3 for s in shapes]
    tensors[0] += 1
    tensors[5] += 1
    x = torch.randn(shape[0], *shape[1:], c).permute(0, 3, 1, 2)
    return x.to("cuda", dtype), [t.to("cuda", dtype) for t in tensors]


def assert_matches_definition(out, x, weights, heads):
    exact = reference.window_attention(x.double(), *(w.double() for w in weights), heads)
    plain = reference.window_attention(x, *weights, heads)
    # no worse than twice the rounding error of the same formula in plain PyTorch
    assert (out - exact).abs().max() <= 2 * (plain - exact).abs().max() + 1e-7


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 5), (2, 17, 31), (1, 128, 132), (3, 200, 341)], ids=str)
@pytest.mark.parametrize("channels", [16, 32, 64])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_matches_reference(backend, dtype, channels, shape):
    skip_unless_runnable(backend)
    x, weights = block(channels, shape, dtype)
    out = window_attention(x, *weights, heads=channels // 4, backend=backend)
    assert_matches_definition(out, x, weights, channels // 4)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_takes_any_strides_and_offsets(backend, dtype):
    skip_unless_runnable(backend)
    x, weights = block(64, (2, 24, 31), dtype, hidden=256)
    offset = torch.cat([x[:, :1], x, x[:, :1]], dim=1).contiguous(memory_format=torch.channels_last)[:, 1:65]
    for view in (x[:, :, 1:-2, ::2], x.contiguous(), offset, x.transpose(2, 3)):
        out = window_attention(view, *weights, heads=16, backend=backend)
        assert_matches_definition(out, view, weights, 16)


@pytest.mark.parametrize("backend", BACKENDS)
def test_registration(backend):
    skip_unless_runnable(backend)
    x, weights = block(16, (2, 6, 9), torch.float32)
    torch.library.opcheck(OP, (x.requires_grad_(), *(w.requires_grad_() for w in weights), 4, 4, "pad", backend))


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_those_of_the_definition(backend):
    skip_unless_runnable(backend)
    x, weights = block(16, (1, 9, 10), torch.float32)
    leaves = [t.requires_grad_() for t in (x, *weights)]
    found = torch.autograd.grad(window_attention(*leaves, heads=4, backend=backend).square().sum(), leaves)
    expected = torch.autograd.grad(reference.window_attention(*leaves, 4).square().sum(), leaves)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_resized_windows_stay_with_the_reference():
    skip_unless_runnable("cuda")
    x, weights = block(16, (1, 9, 10), torch.float32)
    with pytest.raises(BackendError, match="no multiple of 4, got \\(9, 10\\) with fit='resize'"):
        window_attention(x, *weights, heads=4, fit="resize", backend="cuda")
    whole, _ = block(16, (1, 8, 12), torch.float32)
    out = window_attention(whole, *weights, heads=4, fit="resize", backend="cuda")
    assert_matches_definition(out, whole, weights, 4)


def calls(backend):
    """Return calls of both operators on their own inputs, and what each must give."""
    x, weights = block(64, (1, 61, 70), torch.float16)
    picture = torch.rand(1, 1, 200, 300, device="cuda", dtype=torch.float16)
    yield lambda: window_attention(x, *weights, heads=16, backend=backend)
    yield lambda: atrous_details(picture, 3, backend=backend)
    grad = torch.rand(1, 3, 200, 300, device="cuda", dtype=torch.float16)
    yield lambda: torch.ops.emsr_fast.atrous_details_backward(grad, 3, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_streams_do_not_disturb_each_other(backend):
    skip_unless_runnable(backend)
    for call in calls(backend):
        expected = call()
        torch.cuda.synchronize()
        streams = [torch.cuda.Stream() for _ in range(2)]
        results = []
        for _ in range(20):
            for stream in streams:
                with torch.cuda.stream(stream):
                    results.append(call())
        torch.cuda.synchronize()
        assert all(torch.equal(result, expected) for result in results)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_graph_replays_without_waiting_or_allocating(backend):
    skip_unless_runnable(backend)
    for call in calls(backend):
        expected = call()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = call()
        result.fill_(float("nan"))
        before = torch.cuda.memory_stats()["allocation.all.allocated"]
        graph.replay()
        assert torch.cuda.memory_stats()["allocation.all.allocated"] == before
        torch.cuda.synchronize()
        assert torch.equal(result, expected)


def test_the_second_device_is_used_and_the_first_stays_current():
    skip_unless_runnable("cuda")
    if torch.cuda.device_count() < 2:
        pytest.skip("one CUDA device only")
    x, weights = block(16, (1, 9, 10), torch.float16)
    x, weights = x.to("cuda:1"), [w.to("cuda:1") for w in weights]
    assert_matches_definition(window_attention(x, *weights, heads=4, backend="cuda"), x, weights, 4)
    assert torch.cuda.current_device() == 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_wavelet_details_match_in_every_type(backend, dtype):
    skip_unless_runnable(backend)
    torch.manual_seed(0)
    x = torch.rand(2, 1, 341, 130, device="cuda").to(dtype)
    exact, plain = atrous_reference.atrous_details(x.double(), 3), atrous_reference.atrous_details(x, 3)
    out = atrous_details(x, 3, backend=backend)
    assert (out - exact).abs().max() <= 2 * (plain - exact).abs().max() + 1e-7

"""window_attention: every backend against the definition, masks, gradients, registration, compile, export."""

import pytest
import torch

from emsr_fast import BackendError, _backends, _native, window_attention
from emsr_fast.ops.window_attention import PARAMETERS
from emsr_fast.reference import window_attention as reference

OP = torch.ops.emsr_fast.window_attention.default
BACKWARD = torch.ops.emsr_fast.window_attention_backward.default


def parameters(channels, hidden=None, dtype=torch.float32):
    """Return random parameters of the block, in the operator's order."""
    c, hidden = channels, hidden or 2 * channels
    shapes = ((c,), (c,), (3 * c, c), (c, c), (c,), (c,), (c,), (hidden, c), (hidden,), (c, hidden), (c,))
    tensors = [torch.randn(shape, dtype=dtype) * 0.3 for shape in shapes]
    tensors[0] += 1
    tensors[5] += 1
    return tensors


@pytest.mark.parametrize("fit", ["pad", "resize"])
@pytest.mark.parametrize("size", [(8, 8), (41, 37), (4, 50), (7, 6), (24, 50)], ids=str)
@pytest.mark.parametrize(("channels", "heads"), [(16, 4), (32, 8), (64, 16), (64, 4), (48, 3)])
def test_matches_reference(channels, heads, size, fit):
    torch.manual_seed(0)
    weights = parameters(channels)
    x = torch.randn(2, channels, *size)
    out = window_attention(x, *weights, heads=heads, fit=fit, backend="cpp")
    plain = reference.window_attention(x, *weights, heads, 4, fit)
    exact = reference.window_attention(x.double(), *(w.double() for w in weights), heads, 4, fit)
    # no worse than twice the rounding error of the same formula in plain PyTorch
    assert (out - exact).abs().max() <= 2 * (plain - exact).abs().max() + 1e-7


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 2), (5, 4)], ids=str)
def test_sides_shorter_than_a_window_are_padded(size):
    weights = parameters(16)
    x = torch.randn(1, 16, *size)
    expected = reference.window_attention(x.double(), *(w.double() for w in weights), 4)
    torch.testing.assert_close(
        window_attention(x, *weights, heads=4, backend="cpp").double(), expected, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("backend", ["cpp", "reference"])
def test_padded_tokens_do_not_change_the_others(backend):
    # rows 0-3 form whole windows in both images; only the padded rows below differ
    weights = parameters(16)
    x = torch.randn(1, 16, 6, 8)
    whole = window_attention(x, *weights, heads=4, backend=backend)
    top = window_attention(x[:, :, :4], *weights, heads=4, backend=backend)
    torch.testing.assert_close(whole[:, :, :4], top)
    # the last two rows attend to each other only: what pads them is not seen
    alone = window_attention(x[:, :, 4:], *weights, heads=4, backend=backend)
    torch.testing.assert_close(whole[:, :, 4:], alone)


def test_large_scores_do_not_overflow():
    weights = parameters(16)
    weights[2] *= 200
    out = window_attention(torch.randn(1, 16, 8, 8), *weights, heads=4, backend="cpp")
    assert torch.isfinite(out).all()


def test_takes_any_strides():
    weights = parameters(32)
    x = torch.randn(2, 14, 64, 10)[:, ::2, ::2].permute(0, 2, 3, 1)
    out = window_attention(x, *weights, heads=8, backend="cpp")
    torch.testing.assert_close(
        out, window_attention(x.contiguous(), *weights, heads=8, backend="reference"), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("fit", ["pad", "resize"])
@pytest.mark.parametrize("backend", ["cpp", "reference"])
def test_gradient(backend, fit):
    torch.manual_seed(0)
    leaves = [
        t.requires_grad_() for t in (torch.randn(1, 16, 5, 4, dtype=torch.float64), *parameters(16, 16, torch.float64))
    ]
    assert torch.autograd.gradcheck(
        lambda *t: window_attention(*t, heads=4, fit=fit, backend=backend), leaves, fast_mode=True
    )


@pytest.mark.parametrize("size", [(4, 4), (8, 20), (24, 36)], ids=str)
@pytest.mark.parametrize(("channels", "heads"), [(16, 4), (64, 16), (64, 4), (48, 3)])
def test_a_gradient_comes_from_the_kernels(channels, heads, size, monkeypatch):
    torch.manual_seed(0)
    leaves = [t.requires_grad_() for t in (torch.randn(2, channels, *size), *parameters(channels))]
    grad = torch.randn(2, channels, *size).transpose(2, 3).contiguous().transpose(2, 3)
    called = []
    for name, place in (("attend_windows", 1), ("attend_windows_backward", 2)):

        def poisoned(*arguments, name=name, place=place, kernel=getattr(_native, name)):
            called.append(name)
            arguments[place].fill_(float("nan"))
            kernel(*arguments)

        monkeypatch.setattr(_native, name, poisoned)
    found = torch.autograd.grad(window_attention(*leaves, heads=heads), leaves, grad)
    assert called == ["attend_windows", "attend_windows_backward"]
    plain = reference.window_attention_backward(grad, *(t.detach() for t in leaves), heads)
    true = reference.window_attention_backward(grad.double(), *(t.detach().double() for t in leaves), heads)
    eps = torch.finfo(torch.float32).eps
    for ours, same, exact in zip(found, plain, true, strict=True):
        # no worse than twice the rounding error of plain PyTorch; single values are a matter of luck
        error, usual = (ours - exact).square().mean().sqrt(), (same - exact).square().mean().sqrt()
        assert error <= 2 * usual + 2 * eps * exact.square().mean().sqrt()


@pytest.mark.parametrize("backend", ["auto", "cpp"])
def test_registration(backend):
    leaves = [t.requires_grad_() for t in (torch.randn(2, 16, 6, 9), *parameters(16))]
    torch.library.opcheck(OP, (*leaves, 4, 4, "pad", backend))
    whole = [torch.randn(2, 16, 8, 12), *(t.detach() for t in leaves[1:])]
    torch.library.opcheck(BACKWARD, (torch.randn(2, 16, 8, 12), *whole, 4, 4, "pad"))
    torch.library.opcheck(BACKWARD, (torch.randn(2, 16, 6, 9), *(t.detach() for t in leaves), 4, 4, "pad"))


def test_compile_has_no_graph_break_and_trains():
    weights = [w.requires_grad_() for w in parameters(16)]
    x = torch.randn(1, 16, 8, 12)
    fn = torch.compile(lambda t, *w: window_attention(t.relu(), *w, heads=4), fullgraph=True)
    compiled = torch.autograd.grad(fn(x, *weights).square().sum(), weights)
    eager = torch.autograd.grad(window_attention(x.relu(), *weights, heads=4).square().sum(), weights)
    torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-4)


def test_export_is_dynamic_in_height_and_width():
    class Attend(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name, weight in zip(PARAMETERS, parameters(16), strict=True):
                self.register_buffer(name, weight)

        def forward(self, x):
            return window_attention(x, *(getattr(self, name) for name in PARAMETERS), heads=4)

    size = {2: torch.export.Dim("h", min=4, max=512), 3: torch.export.Dim("w", min=4, max=512)}
    module = Attend()
    program = torch.export.export(module, (torch.randn(1, 16, 40, 33),), dynamic_shapes=(size,))
    x = torch.randn(1, 16, 21, 50)
    torch.testing.assert_close(program.module()(x), module(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 3}, "heads must divide the 16 channels of x, got 3"),
        ({"fit": "crop"}, "fit must be one of"),
        ({"fit": "resize", "x": torch.randn(1, 16, 3, 8)}, "sides of at least 4 px, got \\(3, 8\\)"),
        ({"x": torch.randn(1, 16, 0, 8)}, r"at least one channel, row and column, got shape"),
        ({"x": torch.randn(1, 32, 8, 8)}, "norm1_weight must have shape \\(32,\\) for 32 channels, got \\(16,\\)"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {"x": torch.randn(1, 16, 8, 8), "heads": 4, **change}
    with pytest.raises(ValueError, match=message):
        window_attention(arguments.pop("x"), *parameters(16), **arguments)


def test_what_the_kernel_cannot_do_runs_on_the_reference():
    weights = parameters(20)
    x = torch.randn(1, 20, 8, 8)
    torch.testing.assert_close(window_attention(x, *weights, heads=5), reference.window_attention(x, *weights, 5))
    with pytest.raises(BackendError, match="multiples of 16, got 20 and 40"):
        window_attention(x, *weights, heads=5, backend="cpp")


@pytest.mark.parametrize(
    ("change", "backend", "message"),
    [
        ({"fit": "resize"}, "cuda", r"pad sides that are not a multiple of 4, got \(6, 8\) with fit='resize'"),
        ({"heads": 2}, "cuda", "heads of 4, .* got 16 channels, 2 heads, 32 hidden units"),
        ({"heads": 16, "channels": 48}, "triton", "powers of two, .* got 48 channels, 16 heads, 96 hidden units"),
        ({"window": 2}, "triton", "windows of 4 px, got 2"),
    ],
)
def test_a_gpu_kernel_says_what_it_cannot_do(monkeypatch, change, backend, message):
    # as on a machine where the backend runs
    monkeypatch.setattr(_backends, "why_not", lambda *_: None)
    channels = change.pop("channels", 16)
    arguments = {"heads": 4, "backend": backend, **change}
    with pytest.raises(BackendError, match=message):
        window_attention(torch.randn(1, channels, 6, 8), *parameters(channels), **arguments)


def test_parameters_elsewhere_are_refused():
    weights = parameters(16)
    weights[4] = weights[4].to("meta")
    with pytest.raises(ValueError, match="proj_bias is on meta, x on cpu"):
        window_attention(torch.randn(1, 16, 8, 8), *weights, heads=4)


def test_the_operator_itself_checks_shapes_too():
    weights = parameters(16)
    weights[2] = weights[2][:16]
    with pytest.raises(ValueError, match=r"qkv_weight must have shape \(48, 16\)"):
        OP(torch.randn(1, 16, 8, 8), *weights, 4, 4, "pad", "cpp")
    with pytest.raises(ValueError, match="heads must divide the 16 channels of x, got 5"):
        OP(torch.randn(1, 16, 8, 8), *parameters(16), 5, 4, "pad", "cpp")


@pytest.mark.parametrize("where", range(12), ids=("x", *PARAMETERS))
def test_not_a_number_is_not_swallowed(where):
    tensors = [torch.randn(1, 16, 4, 4), *parameters(16)]
    tensors[where].view(-1)[0] = float("nan")
    seen = window_attention(*tensors, heads=4, backend="cpp").isnan()
    expected = window_attention(*tensors, heads=4, backend="reference").isnan()
    assert expected.any()
    assert torch.equal(seen, expected)

"""atrous_details: every backend against the definition, gradients, registration, compile, export."""

import pytest
import torch

from emsr_fast import BackendError, atrous_details
from emsr_fast.ops import OPERATORS
from emsr_fast.reference import atrous as reference

SHAPES = [(1, 1, 96, 96), (2, 3, 341, 17), (1, 2, 1, 5), (1, 1, 7, 64), (3, 1, 130, 67), (1, 1, 1, 1)]
BACKENDS = ["cuda", "triton", "cpp"]
OP = torch.ops.emsr_fast.atrous_details.default
BACKWARD = torch.ops.emsr_fast.atrous_details_backward.default


def skip_unless_runnable(backend, x):
    if reason := OPERATORS["atrous_details"].why_not(backend, x, 1):
        pytest.skip(reason)


def assert_as_exact_as_torch(out, plain, exact):
    # no worse than twice the rounding error of the same formula in plain PyTorch
    assert (out - exact).abs().max() <= 2 * (plain - exact).abs().max() + 1e-7 * exact.abs().max()


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_matches_reference(backend, shape, levels, device):
    torch.manual_seed(0)
    x = torch.rand(shape, device=device)
    skip_unless_runnable(backend, x)
    out = atrous_details(x, levels, backend=backend)
    assert out.shape == (shape[0], levels * shape[1], *shape[2:])
    assert_as_exact_as_torch(out, reference.atrous_details(x, levels), reference.atrous_details(x.double(), levels))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_backward_matches_reference(backend, shape, device):
    torch.manual_seed(0)
    grad = torch.randn(shape[0], 3 * shape[1], *shape[2:], device=device)
    skip_unless_runnable(backend, grad)
    plain, exact = (reference.atrous_details_backward(g, 3) for g in (grad, grad.double()))
    assert_as_exact_as_torch(BACKWARD(grad, 3, backend), plain, exact)


@pytest.mark.parametrize("backend", BACKENDS)
def test_takes_any_strides(backend, device):
    x = torch.rand(2, 9, 50, 6, device=device)[:, ::2, 3:, ::3].transpose(1, 3)
    skip_unless_runnable(backend, x)
    torch.testing.assert_close(
        atrous_details(x, 3, backend=backend), atrous_details(x.contiguous(), 3, backend="reference")
    )


def test_reference_backward_is_the_adjoint():
    x = torch.rand(2, 2, 19, 23, dtype=torch.float64)
    grad = torch.rand(2, 6, 19, 23, dtype=torch.float64)
    forward = (reference.atrous_details(x, 3) * grad).sum()
    torch.testing.assert_close((x * reference.atrous_details_backward(grad, 3)).sum(), forward)


def test_details_and_the_coarsest_smoothing_sum_to_the_blurred_image():
    x = torch.rand(1, 1, 40, 33, dtype=torch.float64)
    coarsest = reference.blur(x)
    for level in (1, 2, 3):
        coarsest = reference.smooth(coarsest, level)
    total = atrous_details(x, 3, backend="cpp").sum(dim=1, keepdim=True) + coarsest
    torch.testing.assert_close(total, reference.blur(x))


@pytest.mark.parametrize("backend", ["cpp", "reference"])
def test_gradient_and_its_gradient(backend):
    x = torch.rand(1, 2, 9, 11, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: atrous_details(t, 3, backend=backend), (x,))
    assert torch.autograd.gradgradcheck(lambda t: atrous_details(t, 2, backend=backend), (x,))


@pytest.mark.parametrize("backend", ["auto", "cpp"])
@pytest.mark.parametrize("op", [OP, BACKWARD], ids=["forward", "backward"])
def test_registration(op, backend, device):
    x = torch.rand(2, 6, 9, 7, device=device).transpose(2, 3).requires_grad_()
    if backend != "auto":
        skip_unless_runnable(backend, x)
    torch.library.opcheck(op, (x, 2, backend))


def test_compile_has_no_graph_break(device):
    fn = torch.compile(lambda t: atrous_details(t.relu(), 3), fullgraph=True)
    x = torch.rand(1, 1, 40, 33, device=device)
    torch.testing.assert_close(fn(x), atrous_details(x, 3))


def test_export_is_dynamic_in_height_and_width():
    class Edges(torch.nn.Module):
        def forward(self, x):
            return atrous_details(x, 3)

    size = {2: torch.export.Dim("h", min=8, max=512), 3: torch.export.Dim("w", min=8, max=512)}
    program = torch.export.export(Edges(), (torch.rand(1, 1, 40, 33),), dynamic_shapes=(size,))
    x = torch.rand(1, 1, 64, 50)
    torch.testing.assert_close(program.module()(x), atrous_details(x, 3))


def test_more_levels_than_the_kernels_have_run_on_the_reference():
    x = torch.rand(1, 1, 20, 20)
    torch.testing.assert_close(atrous_details(x, 6), reference.atrous_details(x, 6))
    with pytest.raises(BackendError, match="at most 4 levels, got 6"):
        atrous_details(x, 6, backend="cpp")


@pytest.mark.parametrize(
    ("x", "levels", "message"),
    [
        (torch.rand(3, 4), 3, r"must be \(B, C, H, W\), got shape \(3, 4\)"),
        (torch.zeros(1, 1, 4, 4, dtype=torch.uint8), 3, "floating point, got torch.uint8"),
        (torch.rand(1, 1, 4, 4), 0, "levels must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_named(x, levels, message):
    with pytest.raises(ValueError, match=message):
        atrous_details(x, levels)

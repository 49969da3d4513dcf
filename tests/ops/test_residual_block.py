"""residual_block: every backend against the definition, gradients, registration, compile, what is refused."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from emsr_fast import BackendError, _backends, conv3x3, residual_block
from emsr_fast.model.blocks import ResidualBlock
from emsr_fast.ops import OPERATORS
from emsr_fast.reference import residual_block as reference
from winograd import transformed


def case(size, channels=16, between=16, dtype=torch.float32):
    torch.manual_seed(0)
    x = torch.randn(2, channels, *size, dtype=dtype)
    first = torch.randn(between, channels, 3, 3, dtype=dtype) * (9 * channels) ** -0.5
    second = torch.randn(channels, between, 3, 3, dtype=dtype) * (9 * between) ** -0.5
    return x, first, second


@pytest.mark.parametrize("backend", ["auto", "cpp", "reference"])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (37, 41)], ids=str)
def test_matches_the_definition(size, backend):
    x, first, second = case(size, 16, 32)
    expected = reference.residual_block(*(t.double() for t in (x, first, second)))
    # what the transforms of a convolution add to its rounding: test_conv3x3.py
    assert (residual_block(x, first, second, backend=backend) - expected).abs().max() <= 4e-5 * expected.abs().max()


def test_is_two_convolutions_to_the_bit():
    x, first, second = case((19, 23))
    between = conv3x3(x, first, activation="relu")
    assert torch.equal(residual_block(x, first, second), conv3x3(between, second, residual=x))


def test_gradients():
    tensors = [t.requires_grad_() for t in case((4, 5), 2, 3, torch.float64)]
    assert torch.autograd.gradcheck(residual_block, tensors)


def test_compile_has_no_graph_break():
    x, first, second = case((9, 10))
    with torch.inference_mode():
        compiled = torch.compile(residual_block, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(x, first, second), residual_block(x, first, second))


def test_the_operator_knows_its_shape():
    with FakeTensorMode():
        x, weight = torch.empty(2, 64, 5, 7, device="cuda"), torch.empty(64, 64, 3, 3, device="cuda")
        out = torch.ops.emsr_fast.residual_block(x, weight, weight, "cuda")
    assert out.shape == x.shape
    assert out.stride() == (5 * 7 * 64, 1, 7 * 64, 64)


def test_what_does_not_fit_is_refused():
    x, first, second = case((4, 5), 16, 32)
    with pytest.raises(ValueError, match=r"first must be \(M, 16, 3, 3\) for 16 channels, got shape \(16, 32, 3, 3\)"):
        residual_block(x, second, first)
    with pytest.raises(ValueError, match=r"second must be \(16, 32, 3, 3\), got shape \(32, 16, 3, 3\)"):
        residual_block(x, first, first)
    with pytest.raises(ValueError, match="at least one channel, row and column"):
        residual_block(x[:, :, :0], first, second)
    operator = torch.ops.emsr_fast.residual_block
    for call in (
        lambda *tensors: residual_block(*tensors, backend="cuda"),
        lambda *tensors: operator(*tensors, "cuda"),
    ):
        with pytest.raises(BackendError, match="backend 'cuda' cannot run: x is on cpu, cuda needs a CUDA device"):
            call(x, first, second)


@pytest.mark.parametrize("size", [(1, 5), (24, 24), (31, 14)], ids=str)
@pytest.mark.parametrize(("channels", "middle"), [(16, 16), (64, 64), (32, 48)])
def test_a_gradient_comes_from_the_kernels(channels, middle, size):
    torch.manual_seed(0)
    leaves = [
        torch.randn(2, channels, *size),
        torch.randn(middle, channels, 3, 3) * (9 * channels) ** -0.5,
        torch.randn(channels, middle, 3, 3) * (9 * middle) ** -0.5,
    ]
    leaves, grad = [t.requires_grad_() for t in leaves], torch.randn(2, channels, *size).contiguous()
    out = residual_block(*leaves)
    assert "residual_block_and_middle" in out.grad_fn.name()
    found = torch.autograd.grad(out, leaves, grad)
    x, first, second = leaves
    plain = torch.autograd.grad(x + transformed(transformed(x, first).relu(), second), leaves, grad)
    exact = [t.detach().double().requires_grad_() for t in leaves]
    true = torch.autograd.grad(residual_block(*exact), exact, grad.double())
    eps = torch.finfo(torch.float32).eps
    # a sign next to zero may turn out otherwise: root mean squares
    for ours, same, t in zip(found, plain, true, strict=True):
        assert (ours - t).norm() <= 2 * (same - t).norm() + 2 * eps * t.norm()


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2)], ids=str)
def test_each_gradient_may_be_wanted_alone(wanted):
    tensors = case((6, 7), 16, 16)
    everything = [t.clone().requires_grad_() for t in tensors]
    expected = torch.autograd.grad(residual_block(*everything).square().sum(), everything)
    leaves = [t.requires_grad_() if i in wanted else t for i, t in enumerate(tensors)]
    found = torch.autograd.grad(residual_block(*leaves).square().sum(), [leaves[i] for i in wanted])
    for ours, i in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, expected[i], rtol=1e-4, atol=1e-4)


def test_second_derivatives():
    leaves = [t.requires_grad_() for t in case((4, 5), 16, 16)]

    def second(leaves):
        firsts = torch.autograd.grad(residual_block(*leaves).square().sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in firsts), leaves)

    true = second([t.detach().double().requires_grad_() for t in leaves])
    for ours, exact in zip(second(leaves), true, strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=1e-3, atol=1e-4 * float(exact.abs().max()))


def test_registration_of_what_a_gradient_needs():
    x, first, second = case((6, 7), 16, 32)
    ops = torch.ops.emsr_fast
    torch.library.opcheck(
        ops.residual_block_step.default, (torch.randn(2, 16, 6, 7), second, torch.randn(2, 32, 6, 7), True)
    )
    leaves = x.requires_grad_(), first.requires_grad_(), second.requires_grad_()
    torch.library.opcheck(ops.residual_block_and_middle.default, leaves)


def test_hooks_of_the_layers_are_called():
    block, seen = ResidualBlock(16), []
    block.conv1.register_forward_hook(lambda *_: seen.append("between"))
    x, _, _ = case((4, 5))
    with torch.inference_mode():
        assert torch.equal(block(x), residual_block(x, block.conv1.weight, block.conv2.weight))
    assert seen == ["between"]
    block(x).sum().backward()
    assert seen == ["between"] * 2


def test_a_preference_for_cuda_passes_over_what_it_lacks(monkeypatch):
    monkeypatch.setattr(_backends, "why_not", lambda *_: None)
    block = OPERATORS["residual_block"]
    halves, x = case((4, 5), 64, 64, torch.float16), case((4, 5))
    with _backends.use_backend("cuda,triton,reference"):
        assert block.choose(*halves) == "cuda"
        assert block.choose(*x) == "triton"
    assert block.choose(*halves) == "triton"

"""edge_gate: the kernel against the definition, NaN, gradient, registration, compile."""

import pytest
import torch
import torch.nn.functional as F

from emsr_fast import BackendError, conv3x3, edge_gate
from emsr_fast.reference import edge_gate as reference
from winograd import transformed

OP = torch.ops.emsr_fast.edge_gate.default


def case(channels, size=(9, 10), batch=2, gain=1.0):
    """Return x, k1, k2, bias, k3; ``gain`` spreads the argument of the sigmoid."""
    torch.manual_seed(0)
    c = channels
    k1, k3 = (torch.randn(c, c, 3, 3) * (9 * c) ** -0.5 for _ in range(2))
    k2, bias = gain * torch.randn(c, c, 1, 1) * c**-0.5, gain * torch.randn(c)
    return [torch.randn(batch, c, *size), k1, k2, bias, k3]


def rms(x):
    return x.square().mean().sqrt()


@pytest.mark.parametrize("gain", [1.0, 60.0])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 4), (7, 64), (41, 37), (113, 50)], ids=str)
@pytest.mark.parametrize("channels", [16, 32, 48, 64, 128])
def test_matches_reference(channels, size, gain):
    tensors = case(channels, size, gain=gain)
    exact = reference.edge_gate(*(t.double() for t in tensors))
    out = edge_gate(*tensors, backend="cpp")
    # no worse than twice the rounding error of the same formula in plain PyTorch, but for two roundings; where the
    # sigmoid is steep by root mean squares alone, since there the largest error of a few pixels is a matter of luck
    x, k1, k2, bias, k3 = tensors
    asked = F.conv2d(F.leaky_relu(transformed(x, k1), 0.2), k2, bias)
    plain = transformed(x, k3) * torch.sigmoid(asked)
    eps = torch.finfo(torch.float32).eps
    assert rms(out - exact) <= 2 * rms(plain - exact) + 2 * eps * rms(exact)
    if gain == 1.0:
        assert (out - exact).abs().max() <= 2 * (plain - exact).abs().max() + 2 * eps * (1 + exact.abs().max())


def test_far_arguments_of_the_sigmoid_do_not_overflow():
    x, k1, k2, bias, k3 = case(16)
    for far in (-200.0, -88.0, 88.0, 200.0):
        out = edge_gate(x, k1, 0 * k2, torch.full_like(bias, far), k3, backend="cpp")
        # float32 ends at 1e-38, with less than its full precision
        gate = torch.sigmoid(torch.tensor(max(far, -87.0), dtype=torch.float64))
        expected = conv3x3(x, k3, backend="cpp").double() * gate
        torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=1e-37)


@pytest.mark.parametrize("where", range(5), ids=("x", "k1", "k2", "bias", "k3"))
def test_not_a_number_is_not_swallowed(where):
    tensors = case(16)
    tensors[where].view(-1)[3] = float("nan")
    expected = edge_gate(*tensors, backend="reference").isnan()
    assert expected.any()
    assert edge_gate(*tensors, backend="cpp").isnan()[expected].all()


@pytest.mark.parametrize("where", range(1, 5), ids=("k1", "k2", "bias", "k3"))
def test_a_changed_weight_is_seen(where):
    tensors = case(16)
    before = edge_gate(*tensors, backend="cpp")
    tensors[where].numpy()[3] += 1
    after = edge_gate(*tensors, backend="cpp")
    assert not torch.allclose(after, before, atol=1e-3)
    torch.testing.assert_close(after, edge_gate(*tensors, backend="reference"), rtol=1e-4, atol=1e-4)


def test_takes_any_strides():
    tensors = case(32, (14, 11))
    expected = edge_gate(*tensors, backend="cpp")
    tensors = [t.flip(0).flip(0) if t.dim() < 2 else t.transpose(0, 1).contiguous().transpose(0, 1) for t in tensors]
    assert torch.equal(edge_gate(*tensors, backend="cpp"), expected)


def test_gradient():
    c = 3
    leaves = [
        torch.randn(s, dtype=torch.float64) for s in ((1, c, 4, 5), (c, c, 3, 3), (c, c, 1, 1), (c,), (c, c, 3, 3))
    ]
    assert torch.autograd.gradcheck(edge_gate, [t.requires_grad_() for t in leaves])


@pytest.mark.parametrize("size", [(1, 5), (24, 24), (31, 14)], ids=str)
@pytest.mark.parametrize("channels", [16, 64])
def test_a_gradient_comes_from_the_kernels(channels, size):
    leaves = [t.requires_grad_() for t in case(channels, size)]
    grad = torch.randn(2, channels, *size)

    def through_transforms(x, k1, k2, bias, k3):
        asked = F.conv2d(F.leaky_relu(transformed(x, k1), 0.2), k2, bias)
        return transformed(x, k3) * torch.sigmoid(asked)

    found = torch.autograd.grad(edge_gate(*leaves), leaves, grad)
    plain = torch.autograd.grad(through_transforms(*leaves), leaves, grad)
    exact = [t.detach().double().requires_grad_() for t in leaves]
    true = torch.autograd.grad(edge_gate(*exact), exact, grad.double())
    eps = torch.finfo(torch.float32).eps
    # a sign next to zero may turn out otherwise: root mean squares
    for ours, same, t in zip(found, plain, true, strict=True):
        assert rms(ours - t) <= 2 * rms(same - t) + 2 * eps * rms(t)


def test_second_derivatives():
    leaves = [t.requires_grad_() for t in case(16, (4, 5))]

    def second(leaves):
        firsts = torch.autograd.grad(edge_gate(*leaves).square().sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in firsts), leaves)

    true = second([t.detach().double().requires_grad_() for t in leaves])
    for ours, exact in zip(second(leaves), true, strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=1e-3, atol=1e-4 * float(exact.abs().max()))


def test_the_gradient_in_plain_torch():
    leaves = [t.double().requires_grad_() for t in case(3, (4, 5))]
    grad = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    expected = torch.autograd.grad(reference.edge_gate(*leaves), leaves, grad)
    torch.testing.assert_close(reference.edge_gate_backward(grad, *leaves), list(expected))


def test_registration_of_what_a_gradient_needs():
    leaves = [t.requires_grad_() for t in case(16)]
    torch.library.opcheck(torch.ops.emsr_fast.edge_gate_and_steps.default, tuple(leaves))


@pytest.mark.parametrize("channels", [16, 5])
def test_registration(channels):
    torch.library.opcheck(OP, (*case(channels), "auto"))


def test_compile_has_no_graph_break():
    tensors = case(16)
    fn = torch.compile(lambda x, *w: edge_gate(x.relu(), *w), fullgraph=True)
    torch.testing.assert_close(fn(*tensors), edge_gate(tensors[0].relu(), *tensors[1:]))


def test_bad_arguments_are_named():
    x, k1, k2, bias, k3 = case(16)
    with pytest.raises(ValueError, match=r"k2 must have shape \(16, 16, 1, 1\) for 16 channels, got \(16, 16\)"):
        edge_gate(x, k1, k2[:, :, 0, 0], bias, k3)
    with pytest.raises(ValueError, match="k3 is on meta, x on cpu"):
        edge_gate(x, k1, k2, bias, k3.to("meta"))
    with pytest.raises(ValueError, match="at least one channel, row and column"):
        edge_gate(x[0], k1, k2, bias, k3)
    with pytest.raises(BackendError, match="channels must be a multiple of 16, got 5"):
        edge_gate(*case(5), backend="cpp")

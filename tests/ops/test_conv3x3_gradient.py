"""Gradients of conv3x3 from the CPU kernels: against float64, any layout, what PyTorch computes instead."""

import pytest
import torch
import torch.nn.functional as F

from emsr_fast import _native, conv3x3
from emsr_fast.reference import conv3x3 as reference
from winograd import transformed, transformed_weight_gradient

EPS = torch.finfo(torch.float32).eps
EPILOGUES = ["none", "relu", "leaky_relu", "none+residual", "relu+residual", "leaky_relu+residual", "none+gate"]
SIZES = [(1, 1), (1, 5), (7, 64), (24, 24), (41, 37)]


def case(inputs, outputs, size, epilogue="none", batch=2):
    """Return x, weight and a second image as leaves, the function of them, and a gradient of its result."""
    torch.manual_seed(0)
    activation, _, second = epilogue.partition("+")
    leaves = [torch.randn(batch, inputs, *size), torch.randn(outputs, inputs, 3, 3) * (9 * inputs) ** -0.5]
    if second:
        leaves.append(torch.randn(batch, outputs, *size))

    def call(x, weight, *other):
        return conv3x3(x, weight, activation=activation, **({second: other[0]} if other else {}))

    return [leaf.requires_grad_() for leaf in leaves], call, torch.randn(batch, outputs, *size)


def in_double(leaves, call, grad):
    leaves = [leaf.detach().double().requires_grad_() for leaf in leaves]
    return torch.autograd.grad(call(*leaves), leaves, grad.double())


@pytest.fixture
def kernel_calls(monkeypatch):
    """The kernels that were called; what they write to is NaN before."""
    names = []
    for name, place in (("conv3x3", 1), ("conv3x3_weight_gradient", 2)):

        def poisoned(*arguments, name=name, place=place, kernel=getattr(_native, name)):
            names.append(name)
            arguments[place].fill_(float("nan"))
            kernel(*arguments)

        monkeypatch.setattr(_native, name, poisoned)
    return names


def test_the_transforms_are_the_gradient_of_the_weight():
    (x, weight), _, grad = case(16, 32, (13, 18))
    x, grad, weight = x.detach().double(), grad.double(), weight.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(F.conv2d(x, weight, padding=1), weight, grad)
    torch.testing.assert_close(transformed_weight_gradient(x, grad), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("channels", [(16, 16), (32, 32), (48, 48), (64, 64), (16, 64), (64, 48), (128, 32)], ids=str)
def test_many_channels_err_as_their_transforms_do(kernel_calls, channels, size):
    leaves, call, grad = case(*channels, size)
    x, weight = (leaf.detach() for leaf in leaves)
    found = torch.autograd.grad(call(*leaves), leaves, grad)
    assert kernel_calls == ["conv3x3", "conv3x3", "conv3x3_weight_gradient"]
    plain = transformed(grad, weight.flip(2, 3).transpose(0, 1)), transformed_weight_gradient(x, grad)
    for ours, same, true in zip(found, plain, in_double(leaves, call, grad), strict=True):
        assert (ours - true).abs().max() <= 2 * (same - true).abs().max() + 2 * EPS * (1 + true.abs().max())


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("channels", [(1, 64), (64, 1), (16, 1)], ids=str)
def test_one_channel_errs_as_torch_does(kernel_calls, channels, size):
    leaves, call, grad = case(*channels, size)
    (found,) = torch.autograd.grad(call(*leaves), leaves[:1], grad)
    assert kernel_calls == ["conv3x3", "conv3x3", "conv3x3_weight_gradient"]
    (plain,) = torch.autograd.grad(reference.conv3x3(*leaves), leaves[:1], grad)
    true = in_double(leaves, call, grad)[0]
    assert (found - true).abs().max() <= 2 * (plain - true).abs().max() + 2 * EPS * (1 + true.abs().max())


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("channels", [(1, 64), (6, 64), (15, 48), (64, 1), (16, 1)], ids=str)
def test_the_weight_of_few_channels_errs_as_torch_does(kernel_calls, channels, size):
    leaves, call, grad = case(*channels, size)
    (found,) = torch.autograd.grad(call(*leaves), leaves[1:], grad)
    assert kernel_calls == ["conv3x3", "conv3x3", "conv3x3_weight_gradient"]
    (plain,) = torch.autograd.grad(reference.conv3x3(*leaves), leaves[1:], grad)
    true = in_double(leaves, call, grad)[1]
    # few values: root mean squares, and the rounding of sums in another order
    error, usual = (found - true).square().mean().sqrt(), (plain - true).square().mean().sqrt()
    assert error <= 2 * usual + 2 * EPS * true.square().mean().sqrt()


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("channels", [(6, 64), (15, 48)], ids=str)
def test_gradients_of_few_inputs_err_as_the_transforms_do(kernel_calls, channels, size):
    leaves, call, grad = case(*channels, size)
    (found,) = torch.autograd.grad(call(*leaves), leaves[:1], grad)
    assert kernel_calls == ["conv3x3", "conv3x3", "conv3x3_weight_gradient"]
    same = transformed(grad, leaves[1].detach().flip(2, 3).transpose(0, 1))
    true = in_double(leaves, call, grad)[0]
    assert (found - true).abs().max() <= 2 * (same - true).abs().max() + 2 * EPS * (1 + true.abs().max())


@pytest.mark.parametrize("epilogue", EPILOGUES)
def test_what_follows_the_convolution_has_its_gradient(kernel_calls, epilogue):
    leaves, call, grad = case(32, 16, (14, 19), epilogue)
    # signs as the kernel finds them: one next to zero may differ in float64
    sign = call(*leaves[:2]).detach() if "relu" in epilogue and len(leaves) == 2 else None
    found = torch.autograd.grad(call(*leaves), leaves, grad)
    assert "conv3x3_weight_gradient" in kernel_calls
    for ours, true in zip(found, in_double(leaves, call, grad), strict=True):
        torch.testing.assert_close(ours.double(), true, rtol=1e-3, atol=1e-4 * float(true.abs().max()))
    if epilogue == "relu":
        x, weight = (leaf.detach().double().requires_grad_() for leaf in leaves)
        true = torch.autograd.grad(F.conv2d(x, weight, padding=1), (x, weight), grad.double() * (sign > 0))
        for ours, exact in zip(found, true, strict=True):
            assert (ours - exact).abs().max() <= 1e-4 * exact.abs().max()


@pytest.mark.filterwarnings("ignore:Input #")  # that it is not float64: the kernels are not
def test_gradcheck():
    # each argument enters linearly: differences are exact but for rounding, 1e-5 of a sum of about 1, at any step
    leaves, call, _ = case(16, 16, (3, 4), "none+gate", batch=1)
    assert torch.autograd.gradcheck(call, leaves, eps=0.1, atol=1e-3, rtol=1e-3, fast_mode=True)


@pytest.mark.parametrize("shape", ["sum", "transposed", "flipped", "every other"])
def test_gradients_of_any_strides(shape):
    leaves, call, grad = case(16, 32, (10, 12), "relu")
    out = call(*leaves)
    if shape == "sum":
        grad = torch.ones(()).expand_as(out)
    elif shape == "transposed":
        grad = grad.transpose(2, 3).contiguous().transpose(2, 3)
    elif shape == "flipped":
        grad = grad.contiguous(memory_format=torch.channels_last).flip(2).flip(2)
    else:
        wide = torch.zeros(2, 64, 20, 12)
        wide[:, ::2, ::2] = grad
        grad = wide[:, ::2, ::2]
    expected = torch.autograd.grad(out, leaves, grad.contiguous(), retain_graph=True)
    for ours, same in zip(torch.autograd.grad(out, leaves, grad), expected, strict=True):
        assert torch.equal(ours, same)


def test_a_weight_of_any_layout_gets_its_gradient():
    leaves, call, grad = case(16, 32, (10, 12))
    expected = torch.autograd.grad(call(*leaves), leaves, grad)
    for laid_out in (
        leaves[1].detach().contiguous(memory_format=torch.channels_last),
        leaves[1].detach().transpose(0, 1).contiguous().transpose(0, 1),
        torch.stack([leaves[1].detach()] * 2, dim=4)[..., 0],
    ):
        other = [leaves[0], laid_out.requires_grad_()]
        for ours, same in zip(torch.autograd.grad(call(*other), other, grad), expected, strict=True):
            assert torch.equal(ours, same)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_gradient_is_the_same_every_time(threads):
    leaves, call, grad = case(32, 32, (61, 50))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        first, *others = (torch.autograd.grad(call(*leaves), leaves, grad) for _ in range(4))
    finally:
        torch.set_num_threads(before)
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_no_image_has_no_gradient():
    leaves, call, grad = case(16, 16, (9, 10), batch=0)
    g_x, g_weight = torch.autograd.grad(call(*leaves), leaves, grad)
    assert g_x.shape == (0, 16, 9, 10)
    assert torch.equal(g_weight, torch.zeros(16, 16, 3, 3))


def test_not_a_number_reaches_the_gradients():
    leaves, call, grad = case(16, 16, (9, 10))
    grad[0, 3, 4, 5] = float("nan")
    g_x, g_weight = torch.autograd.grad(call(*leaves), leaves, grad)
    assert g_x[0, :, 3:6, 4:7].isnan().all()
    assert g_weight[3].isnan().all()


@pytest.mark.parametrize("epilogue", EPILOGUES)
def test_second_derivatives(epilogue):
    leaves, call, grad = case(16, 16, (5, 6), epilogue)
    grad.requires_grad_()

    def second(leaves, grad):
        firsts = torch.autograd.grad(call(*leaves), leaves, grad, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in firsts), [*leaves[:2], grad])

    found = second(leaves, grad)
    true = second([leaf.detach().double().requires_grad_() for leaf in leaves], grad.detach().double().requires_grad_())
    for ours, exact in zip(found, true, strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=1e-3, atol=1e-4 * float(exact.abs().max()))


def test_transforms_and_autocast_are_for_torch():
    (x, weight), call, grad = case(16, 16, (6, 8))
    plain = torch.autograd.grad(call(x, weight), weight, grad)[0]
    x, weight = x.detach(), weight.detach()
    found = torch.func.grad(lambda w: (call(x, w) * grad).sum())(weight)
    torch.testing.assert_close(found, plain, rtol=1e-3, atol=1e-3)
    each = torch.func.vmap(torch.func.grad(lambda w, image, g: (call(image[None], w) * g).sum()), (None, 0, 0))
    torch.testing.assert_close(each(weight, x, grad).sum(0), plain, rtol=1e-3, atol=1e-3)
    _, tangent = torch.func.jvp(lambda w: call(x, w), (weight,), (weight,))
    torch.testing.assert_close(tangent, call(x, weight), rtol=1e-3, atol=1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        out = call(x, weight.requires_grad_())
    assert out.dtype == torch.bfloat16
    (g_weight,) = torch.autograd.grad(out, weight, grad.bfloat16())
    assert g_weight.dtype == torch.float32


@pytest.mark.parametrize("epilogue", EPILOGUES)
@pytest.mark.parametrize("channels", [(16, 32), (6, 16), (16, 1)], ids=str)
def test_registration(channels, epilogue):
    leaves, _, grad = case(*channels, (6, 9), epilogue)
    activation, _, second = epilogue.partition("+")
    others = (leaves[2] if second == name and len(leaves) > 2 else None for name in ("residual", "gate"))
    torch.library.opcheck(torch.ops.emsr_fast.conv3x3.default, (*leaves[:2], activation, *others, "auto"))
    x, weight = (leaf.detach() for leaf in leaves[:2])
    torch.library.opcheck(torch.ops.emsr_fast.conv3x3_input_gradient.default, (grad, weight))
    torch.library.opcheck(torch.ops.emsr_fast.conv3x3_weight_gradient.default, (grad, x, weight))

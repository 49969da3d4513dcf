"""upsample_to_image: folding is exact, the kernel agrees, NaN, gradient, registration, compile."""

import pytest
import torch
import torch.nn.functional as F

from emsr_fast import BackendError, upsample_to_image
from emsr_fast.ops import _upsampled
from emsr_fast.ops.upsample_to_image import fold_weights
from emsr_fast.reference import upsample_to_image as reference
from winograd import transformed

OP = torch.ops.emsr_fast.upsample_to_image.default
SIZES = [(1, 1), (1, 5), (2, 1), (2, 2), (5, 4), (7, 64), (41, 37), (30, 113)]


def case(channels, scale, size=(9, 10), batch=2):
    torch.manual_seed(0)
    up_weight = torch.randn(scale * scale * channels, channels, 3, 3) * (9 * channels) ** -0.5
    return torch.randn(batch, channels, *size), up_weight, torch.randn(1, channels, 3, 3) * (9 * channels) ** -0.5


@pytest.mark.parametrize("size", SIZES[:5], ids=str)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_folding_is_exact(scale, size):
    x, up_weight, out_weight = (t.double() for t in case(3, scale, size))
    folded = fold_weights(up_weight, out_weight)
    windows = F.unfold(x, 5, padding=2).view(2, 3, 5, 5, *size)
    rows, cols = (torch.zeros(n, dtype=torch.int64) for n in size)
    for border in (rows, cols):
        border[0] += 1
        border[-1] += 2
    # every pixel with the weights of its place
    phases = torch.einsum("yxnckl,bcklyx->bnyx", folded[rows][:, cols], windows)
    expected = reference.upsample_to_image(x, up_weight, out_weight, scale)
    torch.testing.assert_close(F.pixel_shuffle(phases, scale), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("channels", [16, 48, 64])
def test_matches_reference(channels, scale, size):
    x, up_weight, out_weight = case(channels, scale, size)
    exact = reference.upsample_to_image(x.double(), up_weight.double(), out_weight.double(), scale)
    plain = reference.upsample_to_image(x, up_weight, out_weight, scale)
    out = upsample_to_image(x, up_weight, out_weight, scale, backend="cpp")
    # no worse than twice the rounding error of the same formula in plain PyTorch
    assert (out - exact).abs().max() <= 2 * (plain - exact).abs().max() + 1e-7


@pytest.mark.parametrize("where", range(3), ids=("x", "up_weight", "out_weight"))
def test_not_a_number_is_not_swallowed(where):
    tensors = case(16, 3)
    tensors[where].view(-1)[3] = float("nan")
    expected = upsample_to_image(*tensors, 3, backend="reference").isnan()
    assert expected.any()
    assert upsample_to_image(*tensors, 3, backend="cpp").isnan()[expected].all()


@pytest.mark.parametrize("where", [1, 2], ids=("up_weight", "out_weight"))
def test_a_changed_weight_is_seen(where):
    tensors = case(16, 2)
    before = upsample_to_image(*tensors, 2, backend="cpp")
    tensors[where].numpy()[0, 3] += 1
    after = upsample_to_image(*tensors, 2, backend="cpp")
    assert not torch.allclose(after, before, atol=1e-3)
    torch.testing.assert_close(after, upsample_to_image(*tensors, 2, backend="reference"), rtol=1e-4, atol=1e-5)


def test_takes_any_strides():
    x, up_weight, out_weight = case(32, 3, (14, 11))
    expected = upsample_to_image(x, up_weight, out_weight, 3, backend="cpp")
    wide = torch.randn(2, 32, 28, 11).contiguous(memory_format=torch.channels_last)
    wide[:, :, ::2] = x
    for same in (wide[:, :, ::2], x.transpose(2, 3).contiguous().transpose(2, 3)):
        assert torch.equal(upsample_to_image(same, up_weight, out_weight, 3, backend="cpp"), expected)


def test_gradient():
    leaves = [
        t[:1].double().requires_grad_() if i == 0 else t.double().requires_grad_()
        for i, t in enumerate(case(2, 2, (3, 4)))
    ]
    assert torch.autograd.gradcheck(lambda *t: upsample_to_image(*t, 2), leaves)


@pytest.mark.parametrize("size", [(1, 5), (9, 10), (24, 25)], ids=str)
@pytest.mark.parametrize(("channels", "scale"), [(16, 2), (16, 4), (48, 3), (64, 3)])
def test_a_gradient_comes_from_the_kernels(channels, scale, size, monkeypatch):
    leaves = [t.requires_grad_() for t in case(channels, scale, size)]
    grad = torch.randn(2, 1, scale * size[0], scale * size[1])
    monkeypatch.setattr(_upsampled, "_like", lambda *given, like=_upsampled._like: like(*given).fill_(float("nan")))

    def through_transforms(x, up_weight, out_weight):
        return F.conv2d(F.pixel_shuffle(transformed(x, up_weight), scale), out_weight, padding=1)

    out = upsample_to_image(*leaves, scale)
    found = [out, *torch.autograd.grad(out, leaves, grad)]
    plain = through_transforms(*leaves)
    plain = [plain, *torch.autograd.grad(plain, leaves, grad)]
    exact = [t.detach().double().requires_grad_() for t in leaves]
    true = upsample_to_image(*exact, scale)
    true = [true, *torch.autograd.grad(true, exact, grad.double())]
    eps = torch.finfo(torch.float32).eps
    for ours, same, t in zip(found, plain, true, strict=True):
        assert ours.shape == t.shape
        assert rms(ours - t) <= 2 * rms(same - t) + 2 * eps * rms(t)


def rms(x):
    return x.square().mean().sqrt()


def test_second_derivatives():
    leaves, grad = [t.requires_grad_() for t in case(16, 2, (4, 5))], torch.randn(2, 1, 8, 10)

    def second(leaves, grad):
        firsts = torch.autograd.grad(upsample_to_image(*leaves, 2), leaves, grad, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in firsts), leaves)

    true = second([t.detach().double().requires_grad_() for t in leaves], grad.double())
    for ours, exact in zip(second(leaves, grad), true, strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=1e-3, atol=1e-4 * float(exact.abs().max()))


@pytest.mark.parametrize("channels", [16, 5])
def test_registration(channels):
    torch.library.opcheck(OP, (*case(channels, 3), 3, "auto"))


def test_registration_of_what_a_gradient_needs():
    x, up_weight, _ = case(16, 3)
    grad = torch.randn(2, 16, 27, 30)
    torch.library.opcheck(torch.ops.emsr_fast.upsampled_input_gradient.default, (grad, up_weight, 3))
    torch.library.opcheck(torch.ops.emsr_fast.upsampled_weight_gradient.default, (grad, x, 3))
    leaves = x.requires_grad_(), up_weight.requires_grad_()
    torch.library.opcheck(torch.ops.emsr_fast.upsampled.default, (*leaves, 3))


def test_compile_has_no_graph_break():
    tensors = case(16, 3)
    fn = torch.compile(lambda x, *w: upsample_to_image(x.relu(), *w, 3), fullgraph=True)
    torch.testing.assert_close(fn(*tensors), upsample_to_image(tensors[0].relu(), *tensors[1:], 3))


def test_bad_arguments_are_named():
    x, up_weight, out_weight = case(16, 3)
    with pytest.raises(ValueError, match=r"up_weight must have shape \(64, 16, 3, 3\) for 16 channels, got \(144,"):
        upsample_to_image(x, up_weight, out_weight, 2)
    with pytest.raises(ValueError, match="scale must be at least 1, got 0"):
        upsample_to_image(x, up_weight, out_weight, 0)
    with pytest.raises(ValueError, match="out_weight is on meta, x on cpu"):
        upsample_to_image(x, up_weight, out_weight.to("meta"), 3)
    with pytest.raises(BackendError, match="channels must be a multiple of 16, got 5"):
        upsample_to_image(*case(5, 3), 3, backend="cpp")
    with pytest.raises(BackendError, match="the kernel has scales 2, 3 and 4, got 5"):
        upsample_to_image(*case(16, 5), 5, backend="cpp")

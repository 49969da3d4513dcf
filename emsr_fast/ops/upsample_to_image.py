"""From features to the super-resolved image: public function, operator, folding of the weights."""

from __future__ import annotations

import functools
import itertools
import math

import torch
from torch import Tensor

from emsr_fast import _native
from emsr_fast.ops import _upsampled  # noqa: F401  registers emsr_fast::upsampled
from emsr_fast.ops._layout import dense_channels_last, side_by_side
from emsr_fast.ops._operator import Operator, check_images, check_weights, wants_gradient
from emsr_fast.ops._packed import PackedWeights
from emsr_fast.ops.conv3x3 import conv3x3, why_not_precision
from emsr_fast.reference import upsample_to_image as reference


def upsample_to_image(x: Tensor, up_weight: Tensor, out_weight: Tensor, scale: int, *, backend: str = "auto") -> Tensor:
    """Return the image from features, (B, 1, scale * H, scale * W).

    conv(pixel_shuffle(conv(x, up_weight), scale), out_weight): two 3x3 convolutions with zero padding 1, no bias. The
    kernel folds them into one 5x5 convolution with other weights at the border. For 64 features and scale 3 it has
    14,400 products per pixel of x instead of 336,960. If a gradient is needed, the convolutions are run one after the
    other: on a CPU by kernels, the first of which writes HR features; else by PyTorch.

    Args:
        x: features, (B, C, H, W), any float dtype and strides.
        up_weight: (scale * scale * C, C, 3, 3).
        out_weight: (1, C, 3, 3).
        scale: HR pixels per LR pixel and axis. The kernels have 2, 3 and 4, multiples of 16 channels and float32 on a
            CPU, 16, 32 or 64 channels and float16 or bfloat16 on a GPU.
        backend: "auto", or one of "triton", "cpp", "reference".

    Raises:
        ValueError: a shape does not fit.
        BackendError: ``backend`` was named and cannot run on ``x``.

    Source: EMSR (arXiv 2401.08115), its upsampling and last convolution.
    """
    given = x, up_weight, out_weight, scale
    if wants_gradient(*given) and UPSAMPLE_TO_IMAGE.trains_on_cpu(*given, backend=backend):
        return conv3x3(torch.ops.emsr_fast.upsampled(x, up_weight, scale), out_weight)
    return UPSAMPLE_TO_IMAGE(*given, backend=backend)


@functools.lru_cache(maxsize=64)
def _axis(scale: int, device: torch.device) -> Tensor:
    """Return which taps along an axis combine, (4, 5, scale, 3, scale, 3) of 0 and 1, float64.

    Border, tap of the folded convolution, HR pixel, tap of the last convolution, HR pixel that it reads, tap of the
    up-convolution. The last tap reads an HR pixel of the neighbour behind, of the pixel itself, or of the one ahead.
    """
    met = torch.zeros(4, 5, scale, 3, scale, 3, dtype=torch.float64)
    for border, phase, tap in itertools.product(range(4), range(scale), range(3)):
        step, hr = divmod(phase + tap - 1, scale)
        # nothing behind the first pixel (1, 3), nothing ahead of the last (2, 3)
        if (border & 1) - 1 <= step <= 1 - (border >> 1):
            for inner in range(3):
                met[border, step + 1 + inner, phase, tap, hr, inner] = 1
    return met.to(device)


def fold_weights(up_weight: Tensor, out_weight: Tensor) -> Tensor:
    """Return the 5x5 convolutions that both weights make, (4, 4, scale**2, C, 5, 5), float64.

    The first two indices say which rows and columns of the border a pixel of x lies on: 0 none, 1 the first, 2 the
    last, 3 both. There the last convolution sees zeros where the folded one would see HR pixels outside the image.
    """
    c = up_weight.shape[1]
    scale = math.isqrt(up_weight.shape[0] // c)
    up = up_weight.detach().double().reshape(c, scale, scale, c, 3, 3)
    axis = _axis(scale, up_weight.device)
    both = torch.einsum("otu,ohgckl->thkcugl", out_weight.detach().double()[0], up)
    rows = torch.einsum("aipthk,thkcugl->aipcugl", axis, both)
    folded = torch.einsum("bjqugl,aipcugl->abpqcij", axis, rows)
    return folded.reshape(4, 4, scale * scale, c, 5, 5)


def _pack(up_weight: Tensor, out_weight: Tensor) -> Tensor:
    return fold_weights(up_weight, out_weight).permute(0, 1, 4, 5, 2, 3).to(up_weight.dtype).contiguous()


def _check(x: Tensor, up_weight: Tensor, out_weight: Tensor, scale: int) -> None:
    check_images(x)
    if scale < 1:
        raise ValueError(f"scale must be at least 1, got {scale}")
    c = x.shape[1]
    check_weights(x, up_weight=(up_weight, (scale * scale * c, c, 3, 3)), out_weight=(out_weight, (1, c, 3, 3)))


def _limits(backend: str, x: Tensor, up_weight: Tensor, out_weight: Tensor, scale: int) -> str | None:
    if reason := why_not_precision(backend, x, up_weight, out_weight):
        return reason
    if x.shape[1] % 16:
        return f"channels must be a multiple of 16, got {x.shape[1]}"
    if scale not in (2, 3, 4):
        return f"the kernel has scales 2, 3 and 4, got {scale}"
    if x.shape[1] not in (16, 32, 64) and backend != "cpp":
        return f"the kernel has 16, 32 or 64 channels, got {x.shape[1]}"
    return None


def _cpp(x: Tensor, out: Tensor, up_weight: Tensor, out_weight: Tensor, scale: int) -> None:
    _native.upsample_to_image(side_by_side(x), out, FOLDED.get(up_weight, out_weight), scale)


def _triton(x: Tensor, out: Tensor, up_weight: Tensor, out_weight: Tensor, scale: int) -> None:
    from emsr_fast.kernels.triton import upsample_to_image

    upsample_to_image.upsample_to_image(dense_channels_last(x), out, up_weight, out_weight, scale)


def _like(x: Tensor, up_weight: Tensor, out_weight: Tensor, scale: int) -> Tensor:
    b, _, h, w = x.shape
    return x.new_empty((b, 1, scale * h, scale * w))


FOLDED = PackedWeights(_pack)  # by up_weight
UPSAMPLE_TO_IMAGE = Operator(
    name="upsample_to_image",
    schema="(Tensor x, Tensor up_weight, Tensor out_weight, int scale, str backend) -> Tensor",
    check=_check,
    like=_like,
    reference=reference.upsample_to_image,
    kernels={"triton": _triton, "cpp": _cpp},
    limits=_limits,
)

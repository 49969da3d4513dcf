"""From features to the super-resolved image: public function, torch.library op, folding of the weights."""

from __future__ import annotations

import torch
from torch import Tensor

from emsr_fast import _dispatch, _native
from emsr_fast.ops._layout import side_by_side
from emsr_fast.ops._library import register
from emsr_fast.ops._packed import PackedWeights
from emsr_fast.ops.conv3x3 import wants_gradient
from emsr_fast.reference import upsample_to_image as reference


def upsample_to_image(x: Tensor, up_weight: Tensor, out_weight: Tensor, scale: int, *, backend: str = "auto") -> Tensor:
    """Return the image that features make, (B, 1, scale * H, scale * W).

    conv(pixel_shuffle(conv(x, up_weight), scale), out_weight): two 3x3 convolutions with zero padding 1, no bias. The
    kernel computes the same as one 5x5 convolution, whose weights, folded in double, differ at the border; for 64
    features and scale 3 that is 14,400 products per pixel of x instead of 336,960. Where a gradient is wanted,
    PyTorch's own three steps compute it, whatever the backend.

    Args:
        x: features, (B, C, H, W), any float dtype and strides.
        up_weight: (scale * scale * C, C, 3, 3).
        out_weight: (1, C, 3, 3).
        scale: HR pixels per LR pixel and axis. The kernel has 2, 3 and 4, multiples of 16 channels and float32.
        backend: "auto", or one of "cpp", "reference".

    Raises:
        ValueError: a shape does not fit.
        BackendError: ``backend`` was named and cannot run on ``x``.

    Source: EMSR (arXiv 2401.08115), its upsampling and last convolution.
    """
    _check(x, up_weight, out_weight, scale)
    tensors = (x, up_weight, out_weight)
    if wants_gradient(*tensors) or _choose(*tensors, scale, backend) == "reference":
        return reference.upsample_to_image(*tensors, scale)
    return torch.ops.emsr_fast.upsample_to_image(*tensors, scale, backend)


def fold_weights(up_weight: Tensor, out_weight: Tensor) -> Tensor:
    """Return the 5x5 convolutions that both weights make, (4, 4, scale**2, C, 5, 5), float64.

    The first two indices say which rows and columns of the border a pixel of x lies on: 0 none, 1 the first, 2 the
    last, 3 both. There the last convolution sees zeros where the folded one would see HR pixels outside the image.
    """
    c = up_weight.shape[1]
    phases = up_weight.shape[0] // c
    scale = round(phases**0.5)
    up = up_weight.detach().double().reshape(c, phases, c * 9)
    last = out_weight.detach().double()[0]
    # what the HR pixels of the neighbour one row and column behind (-1, 0, 1) add to each HR pixel of a pixel
    parts = up.new_zeros(3, 3, phases, c, 3, 3)
    for phase in range(phases):
        for tap in range(9):
            row, hr_row = divmod(phase // scale + tap // 3 - 1, scale)
            col, hr_col = divmod(phase % scale + tap % 3 - 1, scale)
            parts[row + 1, col + 1, phase] += (last[:, tap // 3, tap % 3] @ up[:, hr_row * scale + hr_col]).view(
                c, 3, 3
            )
    folded = up.new_zeros(4, 4, phases, c, 5, 5)
    for rows in range(4):
        for cols in range(4):
            for row in range(rows & 1, 3 - (rows >> 1)):
                for col in range(cols & 1, 3 - (cols >> 1)):
                    folded[rows, cols, ..., row : row + 3, col : col + 3] += parts[row, col]
    return folded


def _pack(up_weight: Tensor, out_weight: Tensor) -> Tensor:
    return fold_weights(up_weight, out_weight).permute(0, 1, 4, 5, 2, 3).to(up_weight.dtype).contiguous()


def _check(x: Tensor, up_weight: Tensor, out_weight: Tensor, scale: int) -> None:
    if x.dim() != 4 or min(x.shape[1:]) < 1:
        raise ValueError(f"x must be (B, C, H, W), at least one channel, row and column, got shape {tuple(x.shape)}")
    if scale < 1:
        raise ValueError(f"scale must be at least 1, got {scale}")
    c = x.shape[1]
    shapes = (("up_weight", up_weight, (scale * scale * c, c, 3, 3)), ("out_weight", out_weight, (1, c, 3, 3)))
    for name, weight, shape in shapes:
        if tuple(weight.shape) != shape:
            raise ValueError(f"{name} must have shape {shape} for {c} channels, got {tuple(weight.shape)}")
        if weight.device != x.device:
            raise ValueError(f"{name} is on {weight.device}, x on {x.device}: move both to one device")


def _choose(x: Tensor, up_weight: Tensor, out_weight: Tensor, scale: int, backend: str) -> str:
    limits = None
    if any(t.dtype != torch.float32 for t in (x, up_weight, out_weight)):
        limits = "the kernel computes in float32, not every tensor is"
    elif x.shape[1] % 16:
        limits = f"channels must be a multiple of 16, got {x.shape[1]}"
    elif scale not in (2, 3, 4):
        limits = f"the kernel has scales 2, 3 and 4, got {scale}"
    elif torch.is_autocast_enabled(x.device.type):
        limits = "autocast chooses the precision of convolutions"
    return _dispatch.choose("upsample_to_image", x, backend, limits)


def _run(x: Tensor, up_weight: Tensor, out_weight: Tensor, scale: int, backend: str) -> Tensor:
    # again: the operator can be called without the function above, and C++ trusts every shape
    _check(x, up_weight, out_weight, scale)
    if _choose(x, up_weight, out_weight, scale, backend) == "reference":
        return reference.upsample_to_image(x, up_weight, out_weight, scale).contiguous()
    out = _out_like(x, up_weight, out_weight, scale, backend)
    _native.upsample_to_image(side_by_side(x), out, FOLDED.get(up_weight, out_weight), scale)
    return out


def _out_like(x: Tensor, up_weight: Tensor, out_weight: Tensor, scale: int, backend: str) -> Tensor:
    b, _, h, w = x.shape
    return x.new_empty((b, 1, scale * h, scale * w))


FOLDED = PackedWeights(_pack)  # by up_weight

register(
    "upsample_to_image",
    "(Tensor x, Tensor up_weight, Tensor out_weight, int scale, str backend) -> Tensor",
    _run,
    _out_like,
)

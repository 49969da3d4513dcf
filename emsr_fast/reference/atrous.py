"""À-trous wavelet details in plain PyTorch: the definition every kernel is tested against."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_GAUSSIAN = (0.002566, 0.1655, 0.6638, 0.1655, 0.002566)  # sigma 0.6 px, as published
GAUSSIAN = tuple(tap / sum(_GAUSSIAN) for tap in _GAUSSIAN)
B3_SPLINE = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


def _smooth(x: Tensor, taps: tuple[float, ...], step: int) -> Tensor:
    """Convolve each channel of ``x`` with ``taps`` x ``taps``, ``step`` px apart, zeros outside the image."""
    channels = x.shape[1]
    row = x.new_tensor(taps).expand(channels, 1, 1, 5)
    x = F.conv2d(x, row, padding=(0, 2 * step), dilation=step, groups=channels)
    return F.conv2d(x, row.transpose(2, 3), padding=(2 * step, 0), dilation=step, groups=channels)


def blur(x: Tensor) -> Tensor:
    """Return A_0, ``x`` (B, C, H, W) behind a Gaussian of sigma 0.6 px; its own adjoint."""
    return _smooth(x, GAUSSIAN, 1)


def smooth(x: Tensor, level: int) -> Tensor:
    """Return A_level from ``x`` = A_(level - 1), (B, C, H, W): taps ``2 ** (level - 1)`` px apart; its own adjoint."""
    return _smooth(x, B3_SPLINE, 2 ** (level - 1))


def atrous_details(x: Tensor, levels: int = 3) -> Tensor:
    """Return the details D_1 .. D_levels of ``x`` (B, C, H, W), as (B, levels * C, H, W), level by level.

    A_0 = blur(x), A_i = smooth(A_(i-1)), D_i = A_(i-1) - A_i. Every A_i is zero outside the image.
    """
    coarser, details = blur(x), []
    for level in range(1, levels + 1):
        finer, coarser = coarser, smooth(coarser, level)
        details.append(finer - coarser)
    return torch.cat(details, dim=1)


def atrous_details_backward(grad: Tensor, levels: int = 3) -> Tensor:
    """Return the gradient of the image, (B, C, H, W), from that of the details, (B, levels * C, H, W).

    Every stage is symmetric, so the adjoint runs the same stages from the coarsest to the finest.
    """
    grads = grad.chunk(levels, dim=1)
    grad_smooth = -grads[-1]
    for level in range(levels, 0, -1):
        grad_smooth = smooth(grad_smooth, level) + grads[level - 1]
        if level > 1:
            grad_smooth = grad_smooth - grads[level - 2]
    return blur(grad_smooth)

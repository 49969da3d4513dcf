"""Convolution and pixel shuffle in one, with its gradient: the kernels write and read HR rows in place, on a CPU.

The HR pixels of one row inside an LR pixel, each with its channels side by side, are the outputs of one convolution: HR
features whose rows are taken ``scale`` at a time are ``scale`` images of ``scale`` times as many channels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from emsr_fast import _native
from emsr_fast.ops._conv3x3_gradient import by_torch
from emsr_fast.ops._layout import dense_channels_last, features_like, side_by_side
from emsr_fast.ops._operator import register
from emsr_fast.ops._packed import PackedWeights


def _parts(weight: Tensor, scale: int) -> Tensor:
    """Return the weight (C * scale**2, C, 3, 3) as (scale, scale * C, C, 3, 3): by HR row, HR column, channel."""
    c = weight.shape[1]
    return weight.reshape(c, scale, scale, c, 3, 3).permute(1, 2, 0, 3, 4, 5).reshape(scale, scale * c, c, 3, 3)


def _scale(weight: Tensor) -> int:
    return round((weight.shape[0] / weight.shape[1]) ** 0.5)


def _pack(weight: Tensor, *, turned: bool = False) -> Tensor:
    parts = _parts(weight, _scale(weight))
    packed = weight.new_empty((len(parts), _native.conv3x3_packed_size(*parts.shape[1:3])))
    for part, to in zip(parts, packed, strict=True):
        _native.conv3x3_pack(part, to, turned=turned)
    return packed


PACKED, TURNED = PackedWeights(_pack), PackedWeights(lambda weight: _pack(weight, turned=True))  # by weight


def _rows(features: Tensor, scale: int) -> list[Tensor]:
    """Return HR features (B, C, scale * H, scale * W), dense and channels last, as images (B, scale * C, H, W)."""
    b, c, h, w = features.shape
    size, strides = (b, scale * c, h // scale, w // scale), (h * w * c, 1, scale * w * c, scale * c)
    return [features.as_strided(size, strides, features.storage_offset() + row * w * c) for row in range(scale)]


def _like(x: Tensor, weight: Tensor, scale: int) -> Tensor:
    b, c, h, w = x.shape
    return x.new_empty((b, h * scale, w * scale, c)).permute(0, 3, 1, 2)


def _run(x: Tensor, weight: Tensor, scale: int) -> Tensor:
    x, out = side_by_side(x), _like(x, weight, scale)
    for to, packed in zip(_rows(out, scale), PACKED.get(weight), strict=True):
        _native.conv3x3(x, to, None, packed, 0, False)
    return out


def _run_input_gradient(grad: Tensor, weight: Tensor, scale: int) -> Tensor:
    out = features_like(grad[:, :, ::scale, ::scale], weight.shape[1])
    other = None
    for rows, packed in zip(_rows(dense_channels_last(grad), scale), TURNED.get(weight), strict=True):
        # each adds to the one before, in place
        _native.conv3x3(rows, out, other, packed, 0, False)
        other = out
    return out


def _run_weight_gradient(grad: Tensor, x: Tensor, scale: int) -> Tensor:
    c = x.shape[1]
    parts = x.new_empty((scale, scale * c, c, 3, 3))
    for rows, part in zip(_rows(dense_channels_last(grad), scale), parts, strict=True):
        _native.conv3x3_weight_gradient(side_by_side(x), rows, part)
    return parts.view(scale, scale, c, c, 3, 3).permute(2, 0, 1, 3, 4, 5).reshape(scale * scale * c, c, 3, 3)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, ctx.scale = inputs
    ctx.save_for_backward(x, weight)


def _gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    for_x, for_weight, _ = ctx.needs_input_grad
    if torch.is_grad_enabled():  # derivatives of these are wanted, too
        return *by_torch(F.pixel_unshuffle(grad, ctx.scale), x, weight, for_x, for_weight), None
    g_x = torch.ops.emsr_fast.upsampled_input_gradient(grad, weight, ctx.scale) if for_x else None
    g_weight = torch.ops.emsr_fast.upsampled_weight_gradient(grad, x, ctx.scale) if for_weight else None
    return g_x, g_weight, None


register("upsampled", "(Tensor x, Tensor weight, int scale) -> Tensor", _run, _like)
register(
    "upsampled_input_gradient",
    "(Tensor grad, Tensor weight, int scale) -> Tensor",
    _run_input_gradient,
    lambda grad, weight, scale: features_like(grad[:, :, ::scale, ::scale], weight.shape[1]),
)
register(
    "upsampled_weight_gradient",
    "(Tensor grad, Tensor x, int scale) -> Tensor",
    _run_weight_gradient,
    lambda grad, x, scale: x.new_empty((scale * scale * x.shape[1], x.shape[1], 3, 3)),
)
torch.library.register_autograd("emsr_fast::upsampled", _gradient, setup_context=_remember)

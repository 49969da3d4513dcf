"""Layouts in memory: the kernels want the channels of a pixel side by side."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Parameter

from emsr_fast import _native, _recording
from emsr_fast.ops._buffers import empty_features


def channels_last(x: Tensor) -> Tensor:
    """Return ``x`` (B, C, H, W) with its channels side by side and its pixels dense."""
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def dense_channels_last(x: Tensor) -> Tensor:
    """Return ``x`` (B, C, H, W) with its channels side by side and its pixels dense; as it is where they are."""
    return x if x.permute(0, 2, 3, 1).is_contiguous() else channels_last(x)


def side_by_side(x: Tensor) -> Tensor:
    """Return ``x`` (B, C, H, W) with its channels side by side; as it is where they are."""
    return x if x.stride(1) == 1 else channels_last(x)


def on_sixteen_bytes(x: Tensor) -> Tensor:
    """Return ``x`` with its channels side by side and pixels on multiples of 16 bytes; as it is where they are."""
    x = side_by_side(x)
    return x if _native.aligned(x, 16) else channels_last(x.clone())


def features_like(x: Tensor, channels: int) -> Tensor:
    """Return an empty (B, channels, H, W) of the size of ``x``, dense and channels last."""
    b, _, h, w = x.shape
    out = None
    # not what only stands for a tensor, in torch.compile
    if type(x) in (Tensor, Parameter) and x.device.type == "cpu" and x.dtype == torch.float32:
        out = empty_features((b, h, w, channels))
    return (x.new_empty((b, h, w, channels)) if out is None else out).permute(0, 3, 1, 2)


def image_like(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return an empty, contiguous tensor with dtype and device of ``x``."""
    out = None
    if (listener := _recording.listener()) is not None and type(x) is Tensor and x.dtype == torch.float32:
        out = listener.memory(shape)
    return x.new_empty(shape) if out is None else out


def concatenated(images: list[Tensor]) -> Tensor:
    """Return images (B, C_i, H, W) of one size as one, (B, sum of C_i, H, W)."""
    if (listener := _recording.listener()) is not None:
        return listener.concatenated(images)
    return torch.cat(images, dim=1)

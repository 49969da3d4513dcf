"""Layouts in memory: the kernels need the channels of a pixel side by side."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from emsr_fast import _native
from emsr_fast.ops._buffers import empty_features
from emsr_fast.ops._operator import look_at, register, wants_gradient


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
    # not what only stands for a tensor, in torch.compile; images of few channels come rarely, in sizes of their own
    if type(x) in (Tensor, Parameter) and channels >= 16 and x.dtype == torch.float32 and x.is_cpu:
        out = empty_features(b, channels, h, w)
        if out is not None:
            return out
    return x.new_empty_strided((b, channels, h, w), (h * w * channels, 1, w * channels, channels))


def concatenated(a: Tensor, b: Tensor) -> Tensor:
    """Return images (B, C_a, H, W) and (B, C_b, H, W) as one, (B, C_a + C_b, H, W).

    On a CPU torch.cat is not used: it wakes PyTorch's own threads, which then spin on cores that our kernels need (10 %
    of the time of emsr-x3-small at 341x341 on two cores).
    """
    if look_at((a, b))[1]:
        return _concatenated(a, b)
    if torch.compiler.is_compiling() or wants_gradient(a, b):
        return torch.cat([a, b], dim=1)
    return torch.ops.emsr_fast.concatenated(a, b)


def _concatenated(a: Tensor, b: Tensor) -> Tensor:
    if a.is_cuda or not a.dtype == b.dtype == torch.float32:
        return torch.cat([a, b], dim=1)
    return torch.from_numpy(np.concatenate([a.detach().numpy(), b.detach().numpy()], axis=1))


def _as_one(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty((a.shape[0], a.shape[1] + b.shape[1], *a.shape[2:]))


register("concatenated", "(Tensor a, Tensor b) -> Tensor", _concatenated, _as_one)

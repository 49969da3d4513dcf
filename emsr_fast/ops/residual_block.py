"""The residual block: public function, torch.library op for the kernel that does both convolutions at once."""

from __future__ import annotations

import torch
from torch import Tensor

from emsr_fast import _dispatch, _native
from emsr_fast.ops._layout import dense_channels_last, features_like, on_sixteen_bytes
from emsr_fast.ops._library import register
from emsr_fast.ops.conv3x3 import conv3x3, limits_of_precision, wants_gradient, why_not_hopper


def residual_block(x: Tensor, first: Tensor, second: Tensor, *, backend: str = "auto") -> Tensor:
    """Return x + conv(relu(conv(x, first)), second), (B, C, H, W): stride 1, zero padding 1, no bias.

    One kernel where "cuda" is named; two of ``conv3x3`` everywhere else, which also have the gradient.

    Args:
        x: features, (B, C, H, W), any float dtype and strides.
        first: weight of the first convolution, (M, C, 3, 3); see ``conv3x3``.
        second: of the second, (C, M, 3, 3).
        backend: "auto", or one of "cuda", "triton", "cpp", "reference". "cuda" (64 channels in float16 or bfloat16,
            compute capability 9.0) is never chosen by "auto" until a GPU has confirmed it.

    Raises:
        ValueError: a shape does not fit.
        BackendError: ``backend`` was named and cannot run on ``x``.

    Source: EMSR (arXiv 2401.08115), its residual block.
    """
    _check(x, first, second)
    if not at_once(x, first, second, backend):
        between = conv3x3(x, first, activation="relu", backend=backend)
        return conv3x3(between, second, residual=x, backend=backend)
    return torch.ops.emsr_fast.residual_block(x, first, second)


def at_once(x: Tensor, first: Tensor, second: Tensor, backend: str = "auto") -> bool:
    """Return whether ``residual_block`` is one kernel here, and not two convolutions.

    Raises:
        BackendError: ``backend`` was named and cannot run on ``x``.
    """
    return not wants_gradient(x, first, second) and _choose(x, first, second, backend) == "cuda"


def _check(x: Tensor, first: Tensor, second: Tensor) -> None:
    if x.dim() != 4 or min(x.shape[1:]) < 1:
        raise ValueError(f"x must be (B, C, H, W), at least one channel, row and column, got shape {tuple(x.shape)}")
    c = x.shape[1]
    if first.dim() != 4 or first.shape[0] < 1 or first.shape[1:] != (c, 3, 3):
        raise ValueError(f"first must be (M, {c}, 3, 3) for {c} channels, got shape {tuple(first.shape)}")
    if second.shape != (c, first.shape[0], 3, 3):
        raise ValueError(f"second must be {(c, first.shape[0], 3, 3)}, got shape {tuple(second.shape)}")
    for name, weight in (("first", first), ("second", second)):
        if weight.device != x.device:
            raise ValueError(f"{name} is on {weight.device}, x on {x.device}: move both to one device")


def _choose(x: Tensor, first: Tensor, second: Tensor, backend: str) -> str:
    reason = limits_of_precision([x, first, second], None)["cuda"] or why_not_hopper(x, first.shape[1], first.shape[0])
    # what keeps the others from running is for conv3x3 to say
    return _dispatch.choose("residual_block", x, backend, {"cuda": reason})


def _run(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    # again: the operator can be called without the function above, and C++ trusts every shape
    _check(x, first, second)
    _choose(x, first, second, "cuda")
    out = features_like(x, x.shape[1])
    weights = (on_sixteen_bytes(dense_channels_last(weight)) for weight in (first, second))
    _native.residual_block_cuda(on_sixteen_bytes(x), out, *weights)
    return out


def _out_like(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    return features_like(x, x.shape[1])


register("residual_block", "(Tensor x, Tensor first, Tensor second) -> Tensor", _run, _out_like)

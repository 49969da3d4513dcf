"""3x3 convolution with activation, residual or gate, in plain PyTorch: the definition."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

LEAKY_SLOPE = 0.2  # of leaky_relu below zero


def conv3x3(
    x: Tensor, weight: Tensor, activation: str = "none", residual: Tensor | None = None, gate: Tensor | None = None
) -> Tensor:
    """Return act(conv(x)), act(conv(x)) + residual, or gate + conv(x) * gate; zero padding 1."""
    out = F.conv2d(x, weight, padding=1)
    if activation == "relu":
        out = F.relu(out)
    elif activation == "leaky_relu":
        out = F.leaky_relu(out, LEAKY_SLOPE)
    if residual is not None:
        return out + residual
    return out if gate is None else gate + out * gate

"""The gate that edge attention makes from edge features, in plain PyTorch: the definition."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from emsr_fast.reference.conv3x3 import LEAKY_SLOPE


def edge_gate(x: Tensor, k1: Tensor, k2: Tensor, bias: Tensor, k3: Tensor) -> Tensor:
    """Return k3(x) * sigmoid(k2(leaky_relu(k1(x))) + bias): k1 and k3 3x3, zero padding 1, k2 1x1."""
    asked = F.leaky_relu(F.conv2d(x, k1, padding=1), LEAKY_SLOPE)
    return F.conv2d(x, k3, padding=1) * torch.sigmoid(F.conv2d(asked, k2, bias))

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


def edge_gate_backward(grad: Tensor, x: Tensor, k1: Tensor, k2: Tensor, bias: Tensor, k3: Tensor) -> list[Tensor]:
    """Return the gradients of x, k1, k2, bias and k3; differentiable."""
    linear, edges = F.conv2d(x, k1, padding=1), F.conv2d(x, k3, padding=1)
    read = F.leaky_relu(linear, LEAKY_SLOPE)
    gate = torch.sigmoid(F.conv2d(read, k2, bias))
    g_asked = grad * edges * gate * (1 - gate)
    g_read, g_k2 = _conv_backward(g_asked, read, k2, 0)
    g_linear = torch.ops.aten.leaky_relu_backward(g_read, linear, LEAKY_SLOPE, False)
    from_k1, g_k1 = _conv_backward(g_linear, x, k1, 1)
    from_k3, g_k3 = _conv_backward(grad * gate, x, k3, 1)
    return [from_k1 + from_k3, g_k1, g_k2, g_asked.sum((0, 2, 3)), g_k3]


def _conv_backward(grad: Tensor, x: Tensor, weight: Tensor, padding: int) -> tuple[Tensor, Tensor]:
    sides, ones = [padding] * 2, [1, 1]
    wanted = [True, True, False]
    return torch.ops.aten.convolution_backward(grad, x, weight, None, ones, sides, ones, False, [0, 0], 1, wanted)[:2]

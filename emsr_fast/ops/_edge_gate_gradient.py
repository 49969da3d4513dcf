"""The edge gate for training on a CPU: its steps are kept for the gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from emsr_fast import _native
from emsr_fast.ops._layout import features_like
from emsr_fast.ops._operator import register
from emsr_fast.reference import edge_gate as reference
from emsr_fast.reference.conv3x3 import LEAKY_SLOPE

Steps = tuple[Tensor, Tensor, Tensor, Tensor]


def _run(x: Tensor, k1: Tensor, k2: Tensor, bias: Tensor, k3: Tensor) -> Steps:
    """Return k3(x) * gate, then what the 1x1 convolution reads, gate = sigmoid(k2(it) + bias), and k3(x)."""
    read = torch.ops.emsr_fast.conv3x3(x, k1, "leaky_relu", None, None, "cpp")
    gate = _image(_native.linear(_tokens(read), k2[:, :, 0, 0], bias).sigmoid_(), x)
    edges = torch.ops.emsr_fast.conv3x3(x, k3, "none", None, None, "cpp")
    return edges * gate, read, gate, edges


def _tokens(image: Tensor) -> Tensor:
    return image.permute(0, 2, 3, 1).reshape(-1, image.shape[1])


def _image(tokens: Tensor, like: Tensor) -> Tensor:
    b, _, h, w = like.shape
    return tokens.view(b, h, w, -1).permute(0, 3, 1, 2)


def _like(x: Tensor, k1: Tensor, k2: Tensor, bias: Tensor, k3: Tensor) -> Steps:
    def features() -> Tensor:
        return features_like(x, x.shape[1])

    return features(), features(), features(), features()


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Steps) -> None:
    ctx.save_for_backward(*inputs, *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _gradient(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return None, None, None, None, None
    if torch.is_grad_enabled():  # derivatives of these are wanted, too
        return tuple(reference.edge_gate_backward(grad, *ctx.saved_tensors[:5]))
    return tuple(torch.ops.emsr_fast.edge_gate_backward(grad, *ctx.saved_tensors))


def _run_backward(
    grad: Tensor, x: Tensor, k1: Tensor, k2: Tensor, bias: Tensor, k3: Tensor, read: Tensor, gate: Tensor, edges: Tensor
) -> list[Tensor]:
    """Return the gradients of x, k1, k2, bias and k3."""
    g_edges = grad * gate
    g_asked = _tokens(torch.ops.aten.sigmoid_backward(grad * edges, gate))
    g_read = _image(_native.linear(g_asked, k2[:, :, 0, 0].t()), x)
    g_read = torch.ops.aten.leaky_relu_backward(g_read, read, LEAKY_SLOPE, False)
    g_k2 = _native.linear_weight_gradient(_tokens(read), g_asked)[:, :, None, None]
    ops = torch.ops.emsr_fast
    g_x = ops.residual_block_step(g_edges, k3, ops.conv3x3_input_gradient(g_read, k1), False)
    g_k1, g_k3 = ops.conv3x3_weight_gradient(g_read, x, k1), ops.conv3x3_weight_gradient(g_edges, x, k3)
    return [g_x, g_k1, g_k2, g_asked.sum(0), g_k3]


_TENSORS = "Tensor x, Tensor k1, Tensor k2, Tensor bias, Tensor k3"
register("edge_gate_and_steps", f"({_TENSORS}) -> (Tensor, Tensor, Tensor, Tensor)", _run, _like)
register(
    "edge_gate_backward",
    f"(Tensor grad, {_TENSORS}, Tensor read, Tensor gate, Tensor edges) -> Tensor[]",
    _run_backward,
    lambda grad, x, k1, k2, bias, k3, *steps: [
        *(features_like(x, x.shape[1]), torch.empty_like(k1), k2.new_empty(k2.shape)),
        *(bias.new_empty(bias.shape), torch.empty_like(k3)),
    ],
)
torch.library.register_autograd("emsr_fast::edge_gate_and_steps", _gradient, setup_context=_remember)

"""The residual block for training on a CPU: two convolutions forward, four backward, and nothing beside them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from emsr_fast import _native
from emsr_fast.ops._conv3x3_gradient import TURNED, by_torch
from emsr_fast.ops._layout import features_like, side_by_side
from emsr_fast.ops._operator import register
from emsr_fast.reference import conv3x3 as reference


def _run(x: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return x + conv(relu(conv(x, first)), second), and what is between the convolutions."""
    middle = torch.ops.emsr_fast.conv3x3(x, first, "relu", None, None, "cpp")
    return torch.ops.emsr_fast.conv3x3(middle, second, "none", x, None, "cpp"), middle


def _like(x: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    return features_like(x, second.shape[0]), features_like(x, first.shape[0])


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _gradient(ctx: Any, grad: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return None, None, None
    x, first, second, middle = ctx.saved_tensors
    if torch.is_grad_enabled():  # derivatives of these are wanted, too
        middle = reference.conv3x3(x, first, "relu")
        g_middle, g_second = by_torch(grad, middle, second, True, True)
        assert g_middle is not None  # asked for
        g_x, g_first = by_torch(torch.ops.aten.threshold_backward(g_middle, middle, 0), x, first, True, True)
        return (None if g_x is None else g_x + grad), g_first, g_second
    for_x, for_first, for_second = ctx.needs_input_grad
    g_second = torch.ops.emsr_fast.conv3x3_weight_gradient(grad, middle, second) if for_second else None
    g_middle = torch.ops.emsr_fast.residual_block_step(grad, second, middle, True) if for_x or for_first else None
    g_first = torch.ops.emsr_fast.conv3x3_weight_gradient(g_middle, x, first) if for_first else None
    return torch.ops.emsr_fast.residual_block_step(g_middle, first, grad, False) if for_x else None, g_first, g_second


def _run_step(grad: Tensor, weight: Tensor, other: Tensor, masked: bool) -> Tensor:
    """Return the gradient of a convolution's input plus ``other``; ``masked``: 0 where ``other`` is not above 0."""
    out = features_like(grad, weight.shape[1])
    _native.conv3x3(side_by_side(grad), out, side_by_side(other), TURNED.get(weight), 0, False, masked)
    return out


register("residual_block_and_middle", "(Tensor x, Tensor first, Tensor second) -> (Tensor, Tensor)", _run, _like)
register(
    "residual_block_step",
    "(Tensor grad, Tensor weight, Tensor other, bool masked) -> Tensor",
    _run_step,
    lambda grad, weight, other, masked: features_like(grad, weight.shape[1]),
)
torch.library.register_autograd("emsr_fast::residual_block_and_middle", _gradient, setup_context=_remember)

"""The gradient of a 3x3 convolution with its activation, residual or gate: by the kernels on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from emsr_fast import _native
from emsr_fast.ops._layout import features_like, side_by_side
from emsr_fast.ops._operator import register
from emsr_fast.ops._packed import PackedWeights
from emsr_fast.reference import conv3x3 as reference


def kernel_fits(outputs: int, inputs: int) -> bool:
    """Return whether the CPU kernel convolves ``inputs`` channels to ``outputs``."""
    return (inputs < 16 or inputs % 16 == 0) and (outputs % 16 == 0 or (outputs == 1 and inputs >= 16))


def pack(weight: Tensor, *, turned: bool = False) -> Tensor:
    """Return ``weight`` (C_out, C_in, 3, 3) in the order of the CPU kernel."""
    packed = weight.new_empty(_native.conv3x3_packed_size(*weight.shape[:2]))
    _native.conv3x3_pack(weight, packed, turned=turned)
    return packed


def _pack_turned(weight: Tensor) -> Tensor:
    outputs, inputs = weight.shape[:2]
    # the kernel has no few channels coming out of many: zeros fill them up
    return pack(F.pad(weight, (0, 0, 0, 0, 0, _filled(outputs, inputs) - inputs)), turned=True)


def _filled(outputs: int, inputs: int) -> int:
    return inputs if kernel_fits(inputs, outputs) else 16


TURNED = PackedWeights(_pack_turned)  # by weight: takes gradients back to the input


def remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Keep what ``gradient`` needs; torch.library's setup_context."""
    x, weight, ctx.activation, residual, gate, _ = inputs
    ctx.plain = residual is None
    ctx.save_for_backward(x, weight, gate, output if ctx.plain and ctx.activation != "none" else None)


def gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Return the gradients of the operator's arguments. Where their derivatives are wanted, too, PyTorch computes."""
    x, weight, gate, output = ctx.saved_tensors
    for_x, for_weight, _, for_residual, for_gate, _ = ctx.needs_input_grad
    again = torch.is_grad_enabled()
    convolve: Callable[..., Tensor] = reference.conv3x3 if again else _by_kernel
    g_gate = convolve(x, weight, "none", None, grad) if for_gate else None  # grad + conv(x) * grad
    g_conv = grad if gate is None else grad * gate
    if ctx.activation != "none":
        # the sign of what was activated; behind a residual it is lost
        signs = output if ctx.plain else convolve(x, weight, ctx.activation, None, None)
        if ctx.activation == "relu":
            g_conv = torch.ops.aten.threshold_backward(grad, signs, 0)
        else:
            g_conv = torch.ops.aten.leaky_relu_backward(grad, signs, reference.LEAKY_SLOPE, False)
    if again:
        g_x, g_weight = by_torch(g_conv, x, weight, for_x, for_weight)
    else:
        g_x = torch.ops.emsr_fast.conv3x3_input_gradient(g_conv, weight) if for_x else None
        g_weight = torch.ops.emsr_fast.conv3x3_weight_gradient(g_conv, x, weight) if for_weight else None
    return g_x, g_weight, None, grad if for_residual else None, g_gate, None


def _by_kernel(x: Tensor, weight: Tensor, activation: str, residual: Tensor | None, gate: Tensor | None) -> Tensor:
    return torch.ops.emsr_fast.conv3x3(x, weight, activation, residual, gate, "cpp")


def by_torch(grad: Tensor, x: Tensor, weight: Tensor, for_x: bool, for_weight: bool) -> list[Tensor | None]:
    """Return the gradients of x and of the weight that are asked for, by PyTorch."""
    wanted = [for_x, for_weight, False]
    # bias sizes, then stride, padding and dilation of 1, not transposed, no output padding, one group
    found = torch.ops.aten.convolution_backward(grad, x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, wanted)
    return list(found[:2])


def _run_input_gradient(grad: Tensor, weight: Tensor) -> Tensor:
    outputs, inputs = weight.shape[:2]
    out = features_like(grad, _filled(outputs, inputs))
    _native.conv3x3(grad if outputs < 16 else side_by_side(grad), out, None, TURNED.get(weight), 0, False)
    return out[:, :inputs]


def _run_weight_gradient(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    out = torch.empty_like(weight)
    if x.shape[0] == 0:
        return out.zero_()
    outputs, inputs = weight.shape[:2]
    _native.conv3x3_weight_gradient(
        x if inputs < 16 else side_by_side(x), grad if outputs == 1 else side_by_side(grad), out
    )
    return out


register(
    "conv3x3_input_gradient",
    "(Tensor grad, Tensor weight) -> Tensor",
    _run_input_gradient,
    lambda grad, weight: features_like(grad, _filled(*weight.shape[:2]))[:, : weight.shape[1]],
)
register(
    "conv3x3_weight_gradient",
    "(Tensor grad, Tensor x, Tensor weight) -> Tensor",
    _run_weight_gradient,
    lambda grad, x, weight: torch.empty_like(weight),
)

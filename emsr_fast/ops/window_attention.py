"""Window attention, the whole pre-norm transformer block: public function, operator, gradient."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from emsr_fast import _native
from emsr_fast.ops import _window_attention_gradient
from emsr_fast.ops._layout import channels_last, features_like, on_sixteen_bytes, side_by_side
from emsr_fast.ops._operator import Operator, check_images, check_weights, register
from emsr_fast.reference import window_attention as reference

PARAMETERS = (
    *("norm1_weight", "norm1_bias", "qkv_weight", "proj_weight", "proj_bias"),
    *("norm2_weight", "norm2_bias", "fc1_weight", "fc1_bias", "fc2_weight", "fc2_bias"),
)
FITS = ("pad", "resize")
_WINDOW = 4  # of the kernels, in px


def window_attention(
    x: Tensor,
    norm1_weight: Tensor,
    norm1_bias: Tensor,
    qkv_weight: Tensor,
    proj_weight: Tensor,
    proj_bias: Tensor,
    norm2_weight: Tensor,
    norm2_bias: Tensor,
    fc1_weight: Tensor,
    fc1_bias: Tensor,
    fc2_weight: Tensor,
    fc2_bias: Tensor,
    *,
    heads: int,
    window: int = 4,
    fit: str = "pad",
    backend: str = "auto",
) -> Tensor:
    """Return ``x`` after a pre-norm transformer block whose attention stays in windows, (B, C, H, W), channels last.

    x = x + proj(attention(LN(x))), then x = x + fc2(relu(fc1(LN(x)))). Tokens are pixels; the attention is
    softmax(q k^T / sqrt(C / heads)) v inside non-overlapping windows, without position bias; LayerNorm runs over the
    channels with eps 1e-5. Differentiable once; the gradient runs the block again in plain PyTorch, on a CPU with
    kernels inside the windows.

    Args:
        x: features, (B, C, H, W), any float dtype and strides.
        norm1_weight, norm1_bias, norm2_weight, norm2_bias: (C).
        qkv_weight: (3C, C), rows are queries, keys, values, each head by head.
        proj_weight, proj_bias: (C, C), (C).
        fc1_weight, fc1_bias, fc2_weight, fc2_bias: (hidden, C), (hidden), (C, hidden), (C).
        heads: attention heads; divides C.
        window: side of a window in px. The kernels have 4.
        fit: what happens to sizes that are not a multiple of ``window``: "pad" adds tokens nobody attends to, "resize"
            resizes the normalised features with nearest to the next smaller multiple and the result back, as published.
        backend: "auto", or one of "cuda", "triton", "cpp", "reference".

    Raises:
        ValueError: a shape does not fit, or ``fit="resize"`` with a side shorter than a window.
        BackendError: ``backend`` was named and cannot run on ``x``.

    Source: EMSR (arXiv 2401.08115), its window transformer.
    """
    parameters = (
        *(norm1_weight, norm1_bias, qkv_weight, proj_weight, proj_bias),
        *(norm2_weight, norm2_bias, fc1_weight, fc1_bias, fc2_weight, fc2_bias),
    )
    return WINDOW_ATTENTION(x, *parameters, heads, window, fit, backend=backend)


def _split(rest: Sequence[Any]) -> tuple[tuple[Tensor, ...], int, int, str]:
    """Return the arguments after x as the 11 parameters, heads, window and fit."""
    heads, window, fit = rest[11:]
    return tuple(rest[:11]), heads, window, fit


def _check(x: Tensor, *rest: Any) -> None:
    parameters, heads, window, fit = _split(rest)
    check_images(x)
    c, hidden = x.shape[1], parameters[7].shape[0]
    if heads < 1 or c % heads:
        raise ValueError(f"heads must divide the {c} channels of x, got {heads}")
    if fit not in FITS:
        raise ValueError(f"fit must be one of {FITS}, got {fit!r}")
    if fit == "resize" and min(x.shape[2:]) < window:
        raise ValueError(f"fit='resize' needs sides of at least {window} px, got {tuple(x.shape[2:])}: use fit='pad'")
    shapes = ((c,), (c,), (3 * c, c), (c, c), (c,), (c,), (c,), (hidden, c), (hidden,), (c, hidden), (c,))
    check_weights(x, **dict(zip(PARAMETERS, zip(parameters, shapes, strict=True), strict=True)))


def _limits(backend: str, x: Tensor, *rest: Any) -> str | None:
    parameters, heads, window, fit = _split(rest)
    c, hidden = x.shape[1], parameters[7].shape[0]
    if window != _WINDOW:
        return f"the kernels have windows of {_WINDOW} px, got {window}"
    if c % 16 or hidden % 16:
        return f"channels and hidden units must be multiples of 16, got {c} and {hidden}"
    if any(p.dtype != x.dtype for p in parameters):
        return f"x is {x.dtype}, not all parameters are"
    if backend == "cpp":
        return None
    if fit == "resize" and (x.shape[2] % window or x.shape[3] % window):
        return (
            f"the GPU kernels pad sides that are not a multiple of {window}, got {tuple(x.shape[2:])} with fit='resize'"
        )
    sizes = f"got {c} channels, {heads} heads, {hidden} hidden units"
    if backend == "cuda" and (c not in (16, 32, 64) or c != 4 * heads or hidden > 4 * c):
        return f"cuda has 16, 32 or 64 channels, heads of 4, at most 4 hidden units a channel, {sizes}"
    if backend == "triton" and not (_power_of_two(c) and _power_of_two(hidden) and c // heads in (1, 2, 4, 8, 16)):
        return f"triton has powers of two, and heads of at most 16 channels, {sizes}"
    return None


def _power_of_two(number: int) -> bool:
    return number & (number - 1) == 0


@functools.lru_cache(maxsize=256)
def _grid_maps(size: int, window: int, fit: str) -> tuple[Tensor, Tensor]:
    """Return, for one axis of ``size`` px, the pixel that each token reads (-1: none) and the token of each pixel."""
    if fit == "pad":
        pixels = torch.arange(size, dtype=torch.int32)
        return F.pad(pixels, (0, -size % window), value=-1), pixels
    tokens = size // window * window

    def nearest(length: int, out: int) -> Tensor:
        # torch's own rounding, in float32, so that kernel and reference pick the same pixels
        return F.interpolate(torch.arange(length, dtype=torch.float32)[None, None], out, mode="nearest")[0, 0].int()

    return nearest(size, tokens), nearest(tokens, size)


def _cpp(x: Tensor, out: Tensor, *rest: Any) -> None:
    parameters, heads, window, fit = _split(rest)
    with torch.inference_mode(False):
        rows, token_of_row = _grid_maps(x.shape[2], window, fit)
        cols, token_of_col = _grid_maps(x.shape[3], window, fit)
    maps = rows, cols, token_of_row, token_of_col
    _native.window_attention(channels_last(x), out, [p.contiguous() for p in parameters], heads, maps)


def _cuda(x: Tensor, out: Tensor, *rest: Any) -> None:
    parameters, heads, _, _ = _split(rest)
    parameters = tuple(p if _native.aligned(p, 16) else p.clone() for p in (p.contiguous() for p in parameters))
    _native.window_attention_cuda(on_sixteen_bytes(x), out, parameters, heads)


def _triton(x: Tensor, out: Tensor, *rest: Any) -> None:
    from emsr_fast.kernels.triton import window_attention

    parameters, heads, _, _ = _split(rest)
    window_attention.window_attention(side_by_side(x), out, [p.contiguous() for p in parameters], heads)


def _run_backward(grad: Tensor, x: Tensor, *rest: Any) -> list[Tensor]:
    """Return the gradients of x and the 11 parameters, by running the block again."""
    parameters, heads, window, _ = _split(rest)
    if _window_attention_gradient.kernel_fits(x, parameters, heads, window):
        return _window_attention_gradient.gradients(grad, x, parameters, heads)
    x_grad, *grads = reference.window_attention_backward(grad, x, *rest)
    return [channels_last(x_grad), *(g.contiguous() for g in grads)]


def _features_like(x: Tensor, *rest: Any) -> Tensor:
    return features_like(x, x.shape[1])


def _gradients_like(grad: Tensor, x: Tensor, *rest: Any) -> list[Tensor]:
    return [_features_like(x), *(p.new_empty(p.shape) for p in rest[:11])]


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, *rest = inputs
    ctx.save_for_backward(x, *rest[:11])
    ctx.heads, ctx.window, ctx.fit, _ = rest[11:]


def _gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    grads = torch.ops.emsr_fast.window_attention_backward(grad, *ctx.saved_tensors, ctx.heads, ctx.window, ctx.fit)
    return (*grads, None, None, None, None)


_TENSORS = "Tensor x, " + ", ".join(f"Tensor {name}" for name in PARAMETERS)
WINDOW_ATTENTION = Operator(
    name="window_attention",
    schema=f"({_TENSORS}, int heads, int window, str fit, str backend) -> Tensor",
    check=_check,
    like=_features_like,
    reference=reference.window_attention,
    kernels={"cuda": _cuda, "triton": _triton, "cpp": _cpp},
    limits=_limits,
    remember=_remember,
    gradient=_gradient,
)
# in plain PyTorch on every device: nothing to choose
register(
    "window_attention_backward",
    f"(Tensor grad, {_TENSORS}, int heads, int window, str fit) -> Tensor[]",
    _run_backward,
    _gradients_like,
)

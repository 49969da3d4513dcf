"""The pre-norm window transformer block in plain PyTorch: the definition every kernel is tested against."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


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
    heads: int,
    window: int = 4,
    fit: str = "pad",
) -> Tensor:
    """Return ``x`` (B, C, H, W) after x + proj(MHSA(LN(x))) and x + fc2(relu(fc1(LN(x)))), tokens being pixels.

    Attention stays inside non-overlapping windows of ``window`` x ``window`` px. Sizes that are no multiple of it are
    padded with tokens that get no attention (``fit="pad"``), or the normalised features are resized with nearest
    down to the next multiple and the result back (``fit="resize"``, as published).
    """
    tokens = x.permute(0, 2, 3, 1)  # (B, H, W, C)
    normed = F.layer_norm(tokens, tokens.shape[-1:], norm1_weight, norm1_bias)
    fitted, present = _fit(normed, window, fit)
    q, k, v = _split(F.linear(fitted, qkv_weight), heads, window)
    attended = _merge(_weights(q, k, present) @ v, fitted.shape)
    attended = _unfit(attended, tokens.shape[1:3], fit)
    tokens = tokens + F.linear(attended, proj_weight, proj_bias)
    normed = F.layer_norm(tokens, tokens.shape[-1:], norm2_weight, norm2_bias)
    hidden = F.relu(F.linear(normed, fc1_weight, fc1_bias))
    return (tokens + F.linear(hidden, fc2_weight, fc2_bias)).permute(0, 3, 1, 2)


def window_attention_backward(
    grad: Tensor,
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
    heads: int,
    window: int = 4,
    fit: str = "pad",
) -> list[Tensor]:
    """Return the gradients of ``x`` and of the 11 parameters, in their order; the forward pass is run again."""
    tokens = x.permute(0, 2, 3, 1)
    size = tokens.shape[1:3]
    normed1, mean1, rstd1 = _layer_norm(tokens, norm1_weight, norm1_bias)
    fitted, present = _fit(normed1, window, fit)
    q, k, v = _split(F.linear(fitted, qkv_weight), heads, window)
    weights = _weights(q, k, present)
    attended = _unfit(_merge(weights @ v, fitted.shape), size, fit)
    middle = tokens + F.linear(attended, proj_weight, proj_bias)
    normed2, mean2, rstd2 = _layer_norm(middle, norm2_weight, norm2_bias)
    hidden = F.relu(F.linear(normed2, fc1_weight, fc1_bias))

    g_out = grad.permute(0, 2, 3, 1)
    g_hidden, g_fc2, g_fc2_bias = _linear_backward(g_out, hidden, fc2_weight)
    g_normed2, g_fc1, g_fc1_bias = _linear_backward(g_hidden * (hidden > 0), normed2, fc1_weight)
    g_middle, g_norm2, g_norm2_bias = _layer_norm_backward(g_normed2, middle, mean2, rstd2, norm2_weight, norm2_bias)
    g_middle = g_middle + g_out
    g_attended, g_proj, g_proj_bias = _linear_backward(g_middle, attended, proj_weight)

    (g_mixed,) = _split(_unfit_backward(g_attended, fitted.shape, fit), heads, window, parts=1)
    g_weights = g_mixed @ v.transpose(-2, -1)
    g_scores = weights * (g_weights - (g_weights * weights).sum(dim=-1, keepdim=True))
    factor = q.shape[-1] ** -0.5
    g_parts = (g_scores @ k * factor, g_scores.transpose(-2, -1) @ q * factor, weights.transpose(-2, -1) @ g_mixed)
    g_qkv = torch.cat([_merge(g, fitted.shape) for g in g_parts], dim=-1)
    g_fitted, g_qkv_weight, _ = _linear_backward(g_qkv, fitted, qkv_weight)

    g_normed1 = _fit_backward(g_fitted, size, fit)
    g_tokens, g_norm1, g_norm1_bias = _layer_norm_backward(g_normed1, tokens, mean1, rstd1, norm1_weight, norm1_bias)
    return [
        (g_tokens + g_middle).permute(0, 3, 1, 2),
        *(g_norm1, g_norm1_bias, g_qkv_weight, g_proj, g_proj_bias),
        *(g_norm2, g_norm2_bias, g_fc1, g_fc1_bias, g_fc2, g_fc2_bias),
    ]


def _fit(normed: Tensor, window: int, fit: str) -> tuple[Tensor, Tensor | None]:
    """Return tokens (B, H', W', C) in whole windows, and which of them (H', W') exist; None: all."""
    _, height, width, _ = normed.shape
    below, right = -height % window, -width % window
    if not (below or right):
        return normed, None
    if fit == "resize":
        return _nearest(normed, (height // window * window, width // window * window)), None
    present = F.pad(torch.ones(height, width, dtype=torch.bool, device=normed.device), (0, right, 0, below))
    return F.pad(normed, (0, 0, 0, right, 0, below)), present


def _unfit(tokens: Tensor, size: torch.Size, fit: str) -> Tensor:
    """Return tokens (B, H, W, C), ``size`` = (H, W), from those in whole windows."""
    if fit == "resize" and tokens.shape[1:3] != size:
        return _nearest(tokens, size)
    return tokens[:, : size[0], : size[1]]


def _fit_backward(grad: Tensor, size: torch.Size, fit: str) -> Tensor:
    if fit == "resize" and grad.shape[1:3] != size:
        return _nearest_backward(grad, size)
    return grad[:, : size[0], : size[1]]


def _unfit_backward(grad: Tensor, shape: torch.Size, fit: str) -> Tensor:
    if fit == "resize" and grad.shape != shape:
        return _nearest_backward(grad, shape[1:3])
    return F.pad(grad, (0, 0, 0, shape[2] - grad.shape[2], 0, shape[1] - grad.shape[1]))


def _nearest(tokens: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(tokens.permute(0, 3, 1, 2), tuple(size), mode="nearest").permute(0, 2, 3, 1)


def _nearest_backward(grad: Tensor, size: Sequence[int]) -> Tensor:
    grad = grad.permute(0, 3, 1, 2)
    shape = (*grad.shape[:2], *size)
    return torch.ops.aten.upsample_nearest2d_backward(grad, grad.shape[2:], shape).permute(0, 2, 3, 1)


def _split(tokens: Tensor, heads: int, window: int, parts: int = 3) -> tuple[Tensor, ...]:
    """Return queries, keys and values, each (B, rows, cols, heads, tokens of a window, dim), from (B, H, W, 3C)."""
    b, h, w, c = tokens.shape
    rows, cols, dim = h // window, w // window, c // parts // heads
    tokens = tokens.reshape(b, rows, window, cols, window, parts, heads, dim).permute(5, 0, 1, 3, 6, 2, 4, 7)
    return tokens.reshape(parts, b, rows, cols, heads, window * window, dim).unbind(0)


def _merge(tokens: Tensor, shape: torch.Size) -> Tensor:
    """Return (B, H, W, C), ``shape``, from the windows and heads of ``_split``."""
    b, rows, cols, heads, _, dim = tokens.shape
    tokens = tokens.reshape(b, rows, cols, heads, shape[1] // rows, shape[2] // cols, dim)
    return tokens.permute(0, 1, 4, 2, 5, 3, 6).reshape(shape)


def _weights(q: Tensor, k: Tensor, present: Tensor | None) -> Tensor:
    """Return softmax(q k^T / sqrt(dim)) over the keys that exist."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if present is not None:
        _, rows, cols, _, tokens, _ = q.shape
        height, width = present.shape
        keys = present.reshape(rows, height // rows, cols, width // cols).transpose(1, 2)
        scores = scores.masked_fill(~keys.reshape(rows, cols, 1, 1, tokens), float("-inf"))
    return scores.softmax(dim=-1)


def _linear_backward(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rows, inputs = grad.flatten(0, -2), x.flatten(0, -2)
    return grad @ weight, rows.transpose(0, 1) @ inputs, rows.sum(dim=0)


def _layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.native_layer_norm(x, x.shape[-1:], weight, bias, 1e-5)


def _layer_norm_backward(
    grad: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.ops.aten.native_layer_norm_backward(
        grad, x, x.shape[-1:], mean, rstd, weight, bias, [True, True, True]
    )

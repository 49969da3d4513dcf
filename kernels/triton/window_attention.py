"""The window transformer block in Triton: one kernel, which reads and writes each pixel once.

A program takes ``WINDOWS`` windows of 16 tokens and keeps their residual stream in float32. Products are tensor-core
products in the type of the input, or exact ones in float32. Attention goes by groups of 16 channels: a head's scores
are a product of 16 channels of which the other heads' are zero in the queries.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

LOG2_E = tl.constexpr(1.4426950408889634)


def program_size(dtype: torch.dtype) -> dict[str, int]:
    """Return how many windows a program takes, and its warps: what fits the registers of sm_80 and sm_90."""
    return {"WINDOWS": 1, "num_warps": 4} if dtype == torch.float32 else {"WINDOWS": 2, "num_warps": 2}


@triton.jit
def _layer_norm(x, weight_ptr, bias_ptr, channel, C: tl.constexpr):
    centred = x - (tl.sum(x, axis=1) / C)[:, None]
    scale = 1 / tl.sqrt(tl.sum(centred * centred, axis=1) / C + 1e-5)
    weight = tl.load(weight_ptr + channel).to(tl.float32)
    return centred * scale[:, None] * weight[None, :] + tl.load(bias_ptr + channel).to(tl.float32)[None, :]


@triton.jit
def _features(tokens, weight_ptr, first, channel, C: tl.constexpr, COUNT: tl.constexpr):
    """Return ``COUNT`` outputs of a matrix (outputs, C), from row ``first``, of every token."""
    outputs = first + tl.arange(0, COUNT)
    return tl.dot(tokens, tl.load(weight_ptr + outputs[None, :] * C + channel[:, None]), input_precision="ieee")


@triton.jit
def _attention(q, k, v, keys, HEAD: tl.constexpr, WINDOWS: tl.constexpr):
    """Return softmax(q k^T / sqrt(HEAD)) v of the heads in 16 channels: (WINDOWS, 16 tokens, 16 channels), float32."""
    own_channel = tl.arange(0, 16)[None, None, :] // HEAD
    mixed = tl.zeros((WINDOWS, 16, 16), tl.float32)
    for head in tl.static_range(16 // HEAD):
        own = own_channel == head
        scores = tl.dot(tl.where(own, q, 0.0).to(q.dtype), tl.permute(k, (0, 2, 1)), input_precision="ieee")
        scores = tl.where(keys[:, None, :], scores * (LOG2_E / HEAD**0.5), -float("inf"))
        shares = tl.exp2(scores - tl.max(scores, axis=2)[:, :, None])
        total = tl.sum(shares, axis=2)[:, :, None]
        head_mixed = tl.dot(shares.to(v.dtype), v, input_precision="ieee")
        mixed = tl.where(own, head_mixed / total, mixed)
    return mixed


@triton.jit(do_not_specialize=["H", "W", "windows"])
def window_attention_kernel(
    x_ptr,  # (B, C, H, W), channels side by side
    x_sb, x_sh, x_sw,
    out_ptr,  # the same
    out_sb, out_sh, out_sw,
    norm1_weight_ptr, norm1_bias_ptr,  # (C)
    qkv_weight_ptr,  # (3C, C)
    proj_weight_ptr, proj_bias_ptr,  # (C, C), (C)
    norm2_weight_ptr, norm2_bias_ptr,  # (C)
    fc1_weight_ptr, fc1_bias_ptr,  # (HIDDEN, C), (HIDDEN)
    fc2_weight_ptr, fc2_bias_ptr,  # (C, HIDDEN), (C)
    H, W,
    windows,  # of all batch entries
    C: tl.constexpr, HIDDEN: tl.constexpr,
    HEAD: tl.constexpr,  # channels of a head
    WINDOWS: tl.constexpr,  # of a program
):  # fmt: skip
    dtype = x_ptr.dtype.element_ty
    token = tl.arange(0, WINDOWS * 16)
    channel = tl.arange(0, C)
    window = tl.program_id(0) * WINDOWS + token // 16
    across, down = tl.cdiv(W, 4), tl.cdiv(H, 4)
    row = window // across % down * 4 + token % 16 // 4
    col = window % across * 4 + token % 4
    # int64: an offset inside a large batch passes 2^31 elements
    b = (window // (across * down)).to(tl.int64)
    exists = window < windows
    inside = exists & (row < H) & (col < W)
    # windows behind the last attend to themselves, unseen
    keys = (inside | ~exists).reshape(WINDOWS, 16)
    pixel = b * x_sb + row.to(tl.int64) * x_sh + col.to(tl.int64) * x_sw
    x = tl.load(x_ptr + pixel[:, None] + channel[None, :], mask=inside[:, None], other=0.0).to(tl.float32)

    normed = _layer_norm(x, norm1_weight_ptr, norm1_bias_ptr, channel, C).to(dtype)
    x += tl.load(proj_bias_ptr + channel).to(tl.float32)[None, :]
    for first in tl.range(0, C, 16):
        q = _features(normed, qkv_weight_ptr, first, channel, C, 16).to(dtype).reshape(WINDOWS, 16, 16)
        k = _features(normed, qkv_weight_ptr, C + first, channel, C, 16).to(dtype).reshape(WINDOWS, 16, 16)
        v = _features(normed, qkv_weight_ptr, 2 * C + first, channel, C, 16).to(dtype).reshape(WINDOWS, 16, 16)
        mixed = _attention(q, k, v, keys, HEAD, WINDOWS).to(dtype).reshape(WINDOWS * 16, 16)
        weight = tl.load(proj_weight_ptr + channel[None, :] * C + (first + tl.arange(0, 16))[:, None])
        x = tl.dot(mixed, weight, x, input_precision="ieee")

    normed = _layer_norm(x, norm2_weight_ptr, norm2_bias_ptr, channel, C).to(dtype)
    x += tl.load(fc2_bias_ptr + channel).to(tl.float32)[None, :]
    for first in tl.range(0, HIDDEN, 16):
        units = first + tl.arange(0, 16)
        hidden = _features(normed, fc1_weight_ptr, first, channel, C, 16)
        hidden += tl.load(fc1_bias_ptr + units).to(tl.float32)[None, :]
        # a NaN stays
        hidden = tl.where(hidden < 0, 0.0, hidden).to(dtype)
        weight = tl.load(fc2_weight_ptr + channel[None, :] * HIDDEN + units[:, None])
        x = tl.dot(hidden, weight, x, input_precision="ieee")

    pixel = b * out_sb + row.to(tl.int64) * out_sh + col.to(tl.int64) * out_sw
    tl.store(out_ptr + pixel[:, None] + channel[None, :], x.to(dtype), mask=inside[:, None])


def window_attention(x: Tensor, out: Tensor, parameters: Sequence[Tensor], heads: int) -> None:
    """Write the transformer block of ``x`` (B, C, H, W) into ``out``, channels side by side in both.

    float32, float16 or bfloat16; the 11 ``parameters`` in the operator's order, contiguous, of the same dtype; C and
    the hidden units powers of two, at least 16; heads of 1, 2, 4, 8 or 16 channels. One launch, no scratch.
    """
    b, c, h, w = x.shape
    windows = b * triton.cdiv(h, 4) * triton.cdiv(w, 4)
    if windows == 0:
        return
    size = program_size(x.dtype)
    # triton launches on torch's current device and stream
    with torch.cuda.device_of(x):
        window_attention_kernel[(triton.cdiv(windows, size["WINDOWS"]),)](
            x, x.stride(0), *x.stride()[2:], out, out.stride(0), *out.stride()[2:], *parameters, h, w, windows,
            C=c, HIDDEN=parameters[7].shape[0], HEAD=c // heads, **size,
        )  # fmt: skip

"""From features to the super-resolved image in Triton, as one 5x5 convolution with all HR pixels of a pixel as outputs.

``upsample_to_image_strip_kernel`` walks down a strip as the one of ``conv3x3`` does, with five rotating rows of sums,
and writes the pixels inside the image's border. ``upsample_to_image_border_kernel`` writes the border, whose weights
depend on the side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from emsr_fast.kernels.triton.conv3x3 import facts, pixels, rows_of_a_program, strip_of
from torch import Tensor

PHASES = 16  # HR pixels of a pixel that a weight has room for
BORDER = 32  # pixels of a program on the border


@triton.jit
def _tap(w_ptr, tap: tl.constexpr, C: tl.constexpr, PHASES: tl.constexpr):
    return tl.load(w_ptr + (tap * C + tl.arange(0, C))[:, None] * PHASES + tl.arange(0, PHASES)[None, :])


@triton.jit
def _row_of_taps(w_ptr, ky: tl.constexpr, C: tl.constexpr, PHASES: tl.constexpr):
    """Return the five taps of a row of a weight (5, 5, C, PHASES), (C, PHASES) each."""
    return (
        _tap(w_ptr, 5 * ky, C, PHASES),
        _tap(w_ptr, 5 * ky + 1, C, PHASES),
        _tap(w_ptr, 5 * ky + 2, C, PHASES),
        _tap(w_ptr, 5 * ky + 3, C, PHASES),
        _tap(w_ptr, 5 * ky + 4, C, PHASES),
    )


@triton.jit
def _write(out_ptr, image, row, cols, inside, sums, H, W, SCALE: tl.constexpr, PHASES: tl.constexpr):
    """Store the HR pixels, (columns, PHASES), of pixels of one row or of several, into (B, SCALE * H, SCALE * W)."""
    phase = tl.arange(0, PHASES)
    hr_row = (image * H + row) * SCALE
    to = (hr_row[:, None] + phase[None, :] // SCALE) * (W * SCALE) + (cols[:, None] * SCALE + phase[None, :] % SCALE)
    used = inside[:, None] & (phase < SCALE * SCALE)[None, :]
    tl.store(out_ptr + to, sums.to(out_ptr.dtype.element_ty), mask=used)


@triton.jit(do_not_specialize=["H", "W", "rows"])
def upsample_to_image_strip_kernel(
    x_ptr,  # (B, H, W, C)
    w_ptr,  # (5, 5, C, PHASES), of pixels inside
    out_ptr,  # (B, SCALE * H, SCALE * W)
    H, W,
    rows,  # that a program owns
    C: tl.constexpr, SCALE: tl.constexpr, PHASES: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    strips, segments = tl.cdiv(W, BLOCK_W), tl.cdiv(H, rows)
    program = tl.program_id(0)
    cols = program % strips * BLOCK_W + tl.arange(0, BLOCK_W)
    first = program // strips % segments * rows
    last = tl.minimum(first + rows, H)
    image = (program // (strips * segments)).to(tl.int64)
    w0, w1, w2 = (
        _row_of_taps(w_ptr, 0, C, PHASES),
        _row_of_taps(w_ptr, 1, C, PHASES),
        _row_of_taps(w_ptr, 2, C, PHASES),
    )
    w3, w4 = _row_of_taps(w_ptr, 3, C, PHASES), _row_of_taps(w_ptr, 4, C, PHASES)
    zeros = tl.zeros((BLOCK_W, PHASES), tl.float32)
    a, b, c, d = zeros, zeros, zeros, zeros
    for row in range(first - 2, last + 2):
        width = tl.where((row >= 0) & (row < H), W, 0)
        row_ptr = x_ptr + (image * H + row) * W * C
        e = zeros
        for kx in tl.static_range(5):
            near = pixels(row_ptr, cols, kx - 2, width, C)
            # this row is the last tap of the output row two above, the first of the one two below
            a = tl.dot(near, w4[kx], a)
            b = tl.dot(near, w3[kx], b)
            c = tl.dot(near, w2[kx], c)
            d = tl.dot(near, w1[kx], d)
            e = tl.dot(near, w0[kx], e)
        done = row - 2
        inner = (done >= first) & (done > 0) & (done < H - 1)
        inside = (cols > 0) & (cols < tl.where(inner, W - 1, 0))
        _write(out_ptr, image, done + tl.zeros_like(cols), cols, inside, a, H, W, SCALE, PHASES)
        a, b, c, d = b, c, d, e


@triton.jit(do_not_specialize=["H", "W"])
def upsample_to_image_border_kernel(
    x_ptr,  # (B, H, W, C)
    w_ptr,  # (4, 4, 5, 5, C, PHASES): 0 inside, 1 first, 2 last, 3 both, of rows and of columns
    out_ptr,  # (B, SCALE * H, SCALE * W)
    H, W,
    C: tl.constexpr, SCALE: tl.constexpr, PHASES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    # 3 x 3 parts of the image, first, inner and last rows by columns, without the middle one
    part = tl.program_id(0) % 8
    part += tl.where(part >= 4, 1, 0)
    image = (tl.program_id(0) // 8).to(tl.int64)
    of_rows, of_cols = part // 3, part % 3
    top = tl.where(of_rows == 0, 0, tl.where(of_rows == 1, 1, H - 1))
    left = tl.where(of_cols == 0, 0, tl.where(of_cols == 1, 1, W - 1))
    # where first and last are one, the first has it
    height = tl.where(of_rows == 0, 1, tl.where(of_rows == 1, H - 2, tl.minimum(H - 1, 1)))
    width = tl.where(of_cols == 0, 1, tl.where(of_cols == 1, W - 2, tl.minimum(W - 1, 1)))
    border_rows = tl.where(of_rows == 0, tl.where(H == 1, 3, 1), tl.where(of_rows == 1, 0, 2))
    border_cols = tl.where(of_cols == 0, tl.where(W == 1, 3, 1), tl.where(of_cols == 1, 0, 2))
    pixel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    across = tl.maximum(width, 1)
    rows, cols = top + pixel // across, left + pixel % across
    own = pixel < tl.maximum(height, 0) * tl.maximum(width, 0)
    channel, phase = tl.arange(0, C), tl.arange(0, PHASES)
    w_ptr += (border_rows * 4 + border_cols) * (25 * C * PHASES)
    sums = tl.zeros((BLOCK, PHASES), tl.float32)
    for tap in range(25):
        y, x = rows + tap // 5 - 2, cols + tap % 5 - 2
        inside = own & (y >= 0) & (y < H) & (x >= 0) & (x < W)
        at = ((image * H + y) * W + x) * C
        near = tl.load(x_ptr + at[:, None] + channel[None, :], mask=inside[:, None], other=0.0)
        weight = tl.load(w_ptr + (tap * C + channel)[:, None] * PHASES + phase[None, :])
        sums = tl.dot(near, weight, sums)
    _write(out_ptr, image, rows, cols, own, sums, H, W, SCALE, PHASES)


def upsample_to_image(x: Tensor, out: Tensor, folded: Tensor, scale: int) -> None:
    """Write the HR image of ``x`` (B, C, H, W) into ``out`` (B, 1, scale * H, scale * W); C is 16, 32 or 64.

    Both float16 or bfloat16, ``x`` dense channels last; ``folded`` (4, 4, scale**2, C, 5, 5) as ``fold_weights`` makes.
    """
    if x.numel() == 0:
        return
    weight = F.pad(folded.permute(0, 1, 4, 5, 3, 2), (0, PHASES - scale * scale)).to(x.dtype).contiguous()
    b, c, h, w = x.shape
    capability, multiprocessors = facts(x)
    columns, warps = strip_of(w, capability)
    strips = triton.cdiv(w, columns)
    rows = rows_of_a_program(h, b * strips, multiprocessors)
    sizes = {"C": c, "SCALE": scale, "PHASES": PHASES}
    with torch.cuda.device_of(x):
        if min(h, w) > 2:
            upsample_to_image_strip_kernel[(b * strips * triton.cdiv(h, rows),)](
                x, weight, out, h, w, rows, **sizes, BLOCK_W=columns, num_warps=warps, num_stages=2
            )
        upsample_to_image_border_kernel[(8 * b, triton.cdiv(max(h, w), BORDER))](
            x, weight, out, h, w, **sizes, BLOCK=BORDER, num_warps=2
        )

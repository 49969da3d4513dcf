"""From features to the super-resolved image in Triton, as one 5x5 convolution with all HR pixels of a pixel as outputs.

``upsample_to_image_last_kernel`` and ``upsample_to_image_fold_kernel`` fold the weights, at each call: under 1 % of it.
``upsample_to_image_strip_kernel`` walks down a strip as the one of ``conv3x3`` does, with five rotating rows of sums,
and writes the pixels inside the image's border. ``upsample_to_image_border_kernel`` writes the border, whose weights
depend on the side.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from emsr_fast.kernels.triton.conv3x3 import facts, pixels, rows_of_a_program, strip_of

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


@triton.jit
def upsample_to_image_last_kernel(
    up_ptr,  # (SCALE * SCALE * C, C, 3, 3), any strides
    up_so, up_sc, up_sk, up_sl,
    last_ptr,  # (1, C, 3, 3), any strides
    last_sc, last_sk, last_sl,
    both_ptr,  # (PHASES, SCALE * SCALE, 9, C) float32: tap of the last convolution, HR pixel it reads, tap of the first
    C: tl.constexpr, SCALE: tl.constexpr, PHASES: tl.constexpr,
):  # fmt: skip
    """Multiply the last convolution's taps with the up-convolution's, for one HR pixel and one tap of the latter."""
    hr, inner = tl.program_id(0) // 9, tl.program_id(0) % 9
    c, tap = tl.arange(0, C), tl.arange(0, PHASES)
    at = c[None, :] * last_sc + (tap // 3 * last_sk + tap % 3 * last_sl)[:, None]
    last = tl.load(last_ptr + at, mask=(tap < 9)[:, None], other=0.0)
    up_ptr += inner // 3 * up_sk + inner % 3 * up_sl
    up = tl.load(up_ptr + (c * (SCALE * SCALE) + hr)[:, None] * up_so + c[None, :] * up_sc)
    both_ptr += (hr * 9 + inner) * C
    tl.store(both_ptr + tap[:, None] * (SCALE * SCALE * 9 * C) + c[None, :], tl.dot(last, up))


@triton.jit
def upsample_to_image_fold_kernel(
    both_ptr,  # as above
    w_ptr,  # (4, 4, 5, 5, C, PHASES): border of rows and of columns, tap of the folded convolution
    C: tl.constexpr, SCALE: tl.constexpr, PHASES: tl.constexpr,
):  # fmt: skip
    """Sum what meets in one tap of the folded convolution, for one kind of border."""
    tap, of_rows, of_cols = tl.program_id(0) % 25, tl.program_id(0) // 100, tl.program_id(0) // 25 % 4
    phase, c = tl.arange(0, PHASES), tl.arange(0, C)
    sums = tl.zeros((C, PHASES), tl.float32)
    for t in tl.static_range(9):
        # the HR row and column that the last convolution reads, and its pixel: behind (0), the same, ahead (2)
        row, col = phase // SCALE + t // 3 - 1 + SCALE, phase % SCALE + t % 3 - 1 + SCALE
        down, across = row // SCALE, col // SCALE
        # zeros behind the first pixel (border 1, 3) and ahead of the last (2, 3)
        seen_row = (down >= of_rows % 2) & (down <= 2 - of_rows // 2)
        seen_col = (across >= of_cols % 2) & (across <= 2 - of_cols // 2)
        ky, kx = tap // 5 - down, tap % 5 - across
        used = seen_row & seen_col & (phase < SCALE * SCALE) & (ky >= 0) & (ky < 3) & (kx >= 0) & (kx < 3)
        at = ((t * SCALE * SCALE + row % SCALE * SCALE + col % SCALE) * 9 + ky * 3 + kx) * C
        sums += tl.load(both_ptr + at[None, :] + c[:, None], mask=used[None, :], other=0.0)
    to = (tl.program_id(0) * C + c)[:, None] * PHASES + phase[None, :]
    tl.store(w_ptr + to, sums.to(w_ptr.dtype.element_ty))


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


def fold_weights(up_weight: Tensor, last_weight: Tensor, scale: int) -> Tensor:
    """Return the 5x5 convolutions that both weights make, (4, 4, 5, 5, C, PHASES), summed in float32.

    As ``ops.upsample_to_image.fold_weights``, whose indices are (4, 4, PHASES, C, 5, 5), but on the device: part of a
    CUDA graph, so that a replay sees a changed weight.
    """
    c = up_weight.shape[1]
    both = torch.empty((PHASES, scale * scale, 9, c), dtype=torch.float32, device=up_weight.device)
    folded = torch.empty((4, 4, 5, 5, c, PHASES), dtype=up_weight.dtype, device=up_weight.device)
    sizes = {"C": c, "SCALE": scale, "PHASES": PHASES}
    upsample_to_image_last_kernel[(9 * scale * scale,)](
        up_weight, *up_weight.stride(), last_weight, *last_weight.stride()[1:], both, **sizes
    )
    upsample_to_image_fold_kernel[(400,)](both, folded, **sizes)
    return folded


def upsample_to_image(x: Tensor, out: Tensor, up_weight: Tensor, last_weight: Tensor, scale: int) -> None:
    """Write the HR image of ``x`` (B, C, H, W) into ``out`` (B, 1, scale * H, scale * W); C is 16, 32 or 64.

    All of one dtype, float16 or bfloat16, ``x`` dense channels last, the weights (scale * scale * C, C, 3, 3) and
    (1, C, 3, 3) in any strides.
    """
    if x.numel() == 0:
        return
    b, c, h, w = x.shape
    capability, multiprocessors = facts(x)
    columns, warps = strip_of(w, capability)
    strips = triton.cdiv(w, columns)
    rows = rows_of_a_program(h, b * strips, multiprocessors)
    sizes = {"C": c, "SCALE": scale, "PHASES": PHASES}
    with torch.cuda.device_of(x):
        weight = fold_weights(up_weight, last_weight, scale)
        if min(h, w) > 2:
            upsample_to_image_strip_kernel[(b * strips * triton.cdiv(h, rows),)](
                x, weight, out, h, w, rows, **sizes, BLOCK_W=columns, num_warps=warps, num_stages=2
            )
        upsample_to_image_border_kernel[(8 * b, triton.cdiv(max(h, w), BORDER))](
            x, weight, out, h, w, **sizes, BLOCK=BORDER, num_warps=2
        )

"""3x3 convolutions with their epilogues in Triton: tensor cores, float16 or bfloat16, sums in float32.

``conv3x3_strip_kernel`` is for 16, 32 or 64 channels going in: a program owns a strip of columns and walks down its
rows. Each input row is read three times, shifted by one column, and serves three output rows, whose sums rotate; the
weights stay in shared memory. ``conv3x3_few_kernel`` is for fewer channels going in, all taps in one product;
``conv3x3_one_kernel`` for a single channel coming out, without tensor cores.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

LEAST_ROWS = 4  # that a strip's program walks down: it reads two more
ONE_COLUMNS = 32  # of a program with one channel coming out
PROGRAMS = 2  # for each multiprocessor, that the strips are cut into

# one compilation serves every size and stride, except that columns side by side (stride 1) get their own
_SIZES = ["H", "W", "rows", "x_sb", "x_sc", "x_sh"]


@triton.jit
def _tap(w_ptr, tap: tl.constexpr, n, C_IN: tl.constexpr):
    c = tl.arange(0, C_IN)
    return tl.load(w_ptr + n[None, :] * (9 * C_IN) + tap * C_IN + c[:, None])


@triton.jit
def _row_of_taps(w_ptr, ky: tl.constexpr, n, C_IN: tl.constexpr):
    """Return the three taps of a row of a weight (C_OUT, 3, 3, C_IN), (C_IN, outputs n) each."""
    return _tap(w_ptr, 3 * ky, n, C_IN), _tap(w_ptr, 3 * ky + 1, n, C_IN), _tap(w_ptr, 3 * ky + 2, n, C_IN)


@triton.jit
def pixels(row_ptr, cols, shift: tl.constexpr, width, C: tl.constexpr):
    """Return the channels of the pixels ``cols + shift`` of a row, (columns, C); zeros outside 0 to ``width``."""
    c = tl.arange(0, C)
    inside = (cols + shift >= 0) & (cols + shift < width)
    # the shift in the scalar: all shifts share the offsets, which take registers
    return tl.load((row_ptr + shift * C) + (cols[:, None] * C + c[None, :]), mask=inside[:, None], other=0.0)


@triton.jit
def _activate(sums, ACTIVATION: tl.constexpr):
    """Return the activation of the convolution's sums; NaN stays NaN."""
    if ACTIVATION == "relu":
        return tl.where(sums < 0, 0.0, sums)
    if ACTIVATION == "leaky_relu" or ACTIVATION == "ask":
        return tl.where(sums < 0, 0.2 * sums, sums)
    return sums


@triton.jit
def _write(out_ptr, other_ptr, at, inside, sums, SECOND: tl.constexpr):
    """Store the sums with the second image: their sum, their product, or other + sums * other."""
    if SECOND != "":
        other = tl.load(other_ptr + at, mask=inside, other=0.0).to(tl.float32)
        if SECOND == "residual":
            sums += other
        if SECOND == "times":
            sums *= other
        if SECOND == "gate":
            sums = other + sums * other
    tl.store(out_ptr + at, sums.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=_SIZES[:3])
def conv3x3_strip_kernel(
    x_ptr,  # (B, H, W, C_IN)
    w_ptr,  # (C_OUT, 3, 3, C_IN)
    other_ptr,  # (B, H, W, C_OUT); read if SECOND
    k2_ptr,  # (C_OUT, C_OUT), outputs first; read if ACTIVATION is "ask"
    bias_ptr,  # (C_OUT); likewise
    out_ptr,  # (B, H, W, C_OUT)
    H, W,
    rows,  # that a program owns
    C_IN: tl.constexpr, C_OUT: tl.constexpr,
    ACTIVATION: tl.constexpr,  # "none", "relu", "leaky_relu", or "ask": sigmoid(k2(leaky_relu) + bias)
    SECOND: tl.constexpr,  # "", "residual", "gate" or "times"
    BLOCK_W: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    strips, segments = tl.cdiv(W, BLOCK_W), tl.cdiv(H, rows)
    program = tl.program_id(0)
    cols = program % strips * BLOCK_W + tl.arange(0, BLOCK_W)
    first = program // strips % segments * rows
    last = tl.minimum(first + rows, H)
    # int64: a batch passes 2^31 elements
    image = (program // (strips * segments)).to(tl.int64) * H
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    top = _row_of_taps(w_ptr, 0, n, C_IN)
    middle = _row_of_taps(w_ptr, 1, n, C_IN)
    bottom = _row_of_taps(w_ptr, 2, n, C_IN)
    if ACTIVATION == "ask":
        k2 = tl.load(k2_ptr + n[None, :] * C_OUT + tl.arange(0, C_OUT)[:, None])
        bias = tl.load(bias_ptr + n).to(tl.float32)[None, :]
    above = tl.zeros((BLOCK_W, BLOCK_N), tl.float32)
    here = tl.zeros((BLOCK_W, BLOCK_N), tl.float32)
    for row in range(first - 1, last + 1):
        # a row outside the image has no columns: cheaper than a second mask over all of them
        width = tl.where((row >= 0) & (row < H), W, 0)
        row_ptr = x_ptr + (image + row) * W * C_IN
        left = pixels(row_ptr, cols, -1, width, C_IN)
        centre = pixels(row_ptr, cols, 0, width, C_IN)
        right = pixels(row_ptr, cols, 1, width, C_IN)
        # this row is the last tap of the output row above, the middle one of its own, the first of the next
        above = tl.dot(right, bottom[2], tl.dot(centre, bottom[1], tl.dot(left, bottom[0], above)))
        here = tl.dot(right, middle[2], tl.dot(centre, middle[1], tl.dot(left, middle[0], here)))
        below = tl.dot(right, top[2], tl.dot(centre, top[1], tl.dot(left, top[0])))
        sums = _activate(above, ACTIVATION)
        if ACTIVATION == "ask":
            sums = 1 / (1 + tl.exp(-tl.dot(sums.to(w_ptr.dtype.element_ty), k2) - bias))
        owned = tl.where(row > first, W, 0)
        place = (image + row - 1) * W * C_OUT
        to = cols[:, None] * C_OUT + n[None, :]
        _write(out_ptr + place, other_ptr + place, to, (cols < owned)[:, None], sums, SECOND)
        above = here
        here = below


@triton.jit(do_not_specialize=_SIZES)
def conv3x3_few_kernel(
    x_ptr,  # (B, C_IN, H, W), any strides
    x_sb, x_sc, x_sh, x_sw,
    w_ptr,  # (C_OUT, 3, 3, C_IN)
    other_ptr,  # (B, H, W, C_OUT); read if SECOND
    out_ptr,  # (B, H, W, C_OUT)
    H, W,
    C_IN: tl.constexpr, C_OUT: tl.constexpr, ACTIVATION: tl.constexpr, SECOND: tl.constexpr,
    BLOCK_W: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(W, BLOCK_W)
    # int64, as what follows from it: a batch passes 2^31 elements, and so do an image's channels
    line = (tl.program_id(0) // blocks).to(tl.int64)
    row = line % H
    cols = tl.program_id(0) % blocks * BLOCK_W + tl.arange(0, BLOCK_W)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    y, x = row + k // C_IN // 3 - 1, cols[:, None] + (k // C_IN % 3 - 1)[None, :]
    used = (k < 9 * C_IN) & (y >= 0) & (y < H)
    at = line // H * x_sb + k % C_IN * x_sc.to(tl.int64) + y * x_sh
    inside = used[None, :] & (x >= 0) & (x < W)
    taps = tl.load(x_ptr + at[None, :] + x * x_sw, mask=inside, other=0.0)
    weight = tl.load(w_ptr + n[None, :] * (9 * C_IN) + k[:, None], mask=(k < 9 * C_IN)[:, None], other=0.0)
    sums = _activate(tl.dot(taps, weight), ACTIVATION)
    place = line * W * C_OUT
    to = cols[:, None] * C_OUT + n[None, :]
    _write(out_ptr + place, other_ptr + place, to, (cols < W)[:, None], sums, SECOND)


@triton.jit(do_not_specialize=_SIZES[:2])
def conv3x3_one_kernel(
    x_ptr,  # (B, H, W, C_IN)
    w_ptr,  # (1, 3, 3, C_IN)
    other_ptr,  # (B, H, W, 1); read if SECOND
    out_ptr,  # (B, H, W, 1)
    H, W,
    C_IN: tl.constexpr, ACTIVATION: tl.constexpr, SECOND: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(W, BLOCK_W)
    line = (tl.program_id(0) // blocks).to(tl.int64)
    cols = tl.program_id(0) % blocks * BLOCK_W + tl.arange(0, BLOCK_W)
    c = tl.arange(0, C_IN)
    products = tl.zeros((BLOCK_W, C_IN), tl.float32)
    for ky in tl.static_range(3):
        row = line % H + ky - 1
        width = tl.where((row >= 0) & (row < H), W, 0)
        for kx in tl.static_range(3):
            near = pixels(x_ptr + (line + ky - 1) * W * C_IN, cols, kx - 1, width, C_IN)
            products += near.to(tl.float32) * tl.load(w_ptr + (3 * ky + kx) * C_IN + c).to(tl.float32)[None, :]
    sums = _activate(tl.sum(products, axis=1), ACTIVATION)
    _write(out_ptr + line * W, other_ptr + line * W, cols, cols < W, sums, SECOND)


def strip_of(width: int, capability: tuple[int, int]) -> tuple[int, int]:
    """Return columns and warps of a strip: three rows of sums in registers, nine taps in shared memory.

    The taps of 64 to 64 channels are 72 KB of the 227 KB (9.0, 10.0) or 99 KB (163 on 8.0) that a block has. Before
    9.0, products also take their operands from registers: 64 columns spill, on 8.0, too.
    """
    if capability not in ((9, 0), (10, 0)):
        return 32, 8
    return (128, 8) if width > 64 else (64, 4)


def strip_settings(width: int, inputs: int, outputs: int, capability: tuple[int, int]) -> dict[str, Any]:
    """Return the strip kernel's compile-time choices."""
    columns, warps = strip_of(width, capability)
    block_n = next(n for n in (64, 32, 16) if outputs % n == 0)
    sizes = {"C_IN": inputs, "C_OUT": outputs, "BLOCK_W": columns, "BLOCK_N": block_n}
    return {**sizes, "num_warps": warps, "num_stages": 2}


def few_settings(inputs: int, outputs: int) -> dict[str, Any]:
    """Return the compile-time choices for ``inputs`` below 16."""
    block_n = next(n for n in (64, 32, 16) if outputs % n == 0)
    block_k = max(16, triton.next_power_of_2(9 * inputs))
    columns = min(64, 4096 // block_k)
    return {"C_IN": inputs, "C_OUT": outputs, "BLOCK_W": columns, "BLOCK_N": block_n, "BLOCK_K": block_k}


def rows_of_a_program(height: int, strips: int, multiprocessors: int) -> int:
    """Return how many rows a program walks down, so that ``strips`` of columns fill the GPU about evenly."""
    segments = max(1, PROGRAMS * multiprocessors // strips)
    return max(min(LEAST_ROWS, height), triton.cdiv(height, segments))


def facts(x: Tensor) -> tuple[tuple[int, int], int]:
    """Return compute capability and multiprocessors of the device of ``x``; in the interpreter those of an H100."""
    if not x.is_cuda:
        return (9, 0), 132
    gpu = torch.cuda.get_device_properties(x.device)
    return (gpu.major, gpu.minor), gpu.multi_processor_count


def launch_strip(
    x: Tensor, weight: Tensor, out: Tensor, other: Tensor | None, activation: str, second: str, *asked: Tensor
) -> None:
    """Run the strip kernel; ``asked`` are k2 (C, C) and its bias where ``activation`` is "ask"."""
    b, inputs, h, w = x.shape
    capability, multiprocessors = facts(x)
    settings = strip_settings(w, inputs, out.shape[1], capability)
    strips = triton.cdiv(w, settings["BLOCK_W"])
    blocks = out.shape[1] // settings["BLOCK_N"]
    rows = rows_of_a_program(h, b * strips * blocks, multiprocessors)
    k2, bias = asked or (weight, weight)
    conv3x3_strip_kernel[(b * strips * triton.cdiv(h, rows), blocks)](
        x, weight, out if other is None else other, k2, bias, out, h, w, rows,
        ACTIVATION=activation, SECOND=second, **settings,
    )  # fmt: skip


def conv3x3(x: Tensor, out: Tensor, other: Tensor | None, weight: Tensor, activation: str, gated: bool) -> None:
    """Write the convolution of ``x`` (B, C_in, H, W) into ``out`` (B, C_out, H, W), with what follows it.

    All of one dtype, float16 or bfloat16, and dense channels last, ``weight`` (C_out, C_in, 3, 3) too; ``x`` may have
    any strides below 16 channels.
    """
    if x.numel() == 0:
        return
    (b, inputs, h, w), outputs = x.shape, out.shape[1]
    second = "" if other is None else "gate" if gated else "residual"
    beside = out if other is None else other
    with torch.cuda.device_of(x):
        if inputs < 16:
            few = few_settings(inputs, outputs)
            conv3x3_few_kernel[(b * h * triton.cdiv(w, few["BLOCK_W"]), outputs // few["BLOCK_N"])](
                x, *x.stride(), weight, beside, out, h, w, ACTIVATION=activation, SECOND=second, **few
            )
        elif outputs == 1:
            conv3x3_one_kernel[(b * h * triton.cdiv(w, ONE_COLUMNS),)](
                x, weight, beside, out, h, w, C_IN=inputs, ACTIVATION=activation, SECOND=second, BLOCK_W=ONE_COLUMNS
            )
        else:
            launch_strip(x, weight, out, other, activation, second)

"""À-trous details and their adjoint in Triton: one launch per stage, the images between stages in float32.

A program owns ``BLOCK`` columns and ``ROWS`` rows that lie as far apart as the stage's taps do. It walks down them:
each row it reads is filtered along x once and then serves five outputs along y, from registers. Loads are masked to
the image, so every stage sees zeros outside.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 8  # outputs of a program along y, from ROWS + 4 rows read
BLOCK = 128  # and along x

_SUM = 2 * 0.002566 + 2 * 0.1655 + 0.6638
GAUSSIAN = {"CENTRE": 0.6638 / _SUM, "NEXT": 0.1655 / _SUM, "OUTER": 0.002566 / _SUM}
B3_SPLINE = {"CENTRE": 6 / 16, "NEXT": 4 / 16, "OUTER": 1 / 16}

# one compilation serves every size and stride, except that columns side by side (stride 1) get their own
_SIZES = ["C", "H", "W", "step"]


@triton.jit
def _locate(C, H, W, step, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Return this program's batch entry, channel, first row and columns."""
    blocks = tl.cdiv(W, BLOCK)
    runs = tl.cdiv(H, step * ROWS) * step
    program = tl.program_id(0)
    plane = program // (blocks * runs)
    run = program // blocks % runs
    cols = program % blocks * BLOCK + tl.arange(0, BLOCK)
    # int64, as the columns below: an offset inside a large batch passes 2^31 elements
    b = (plane // C).to(tl.int64)
    c = (plane % C).to(tl.int64)
    return b, c, run // step * (step * ROWS) + run % step, cols.to(tl.int64)


@triton.jit
def _five_taps(a, b, c, d, e, CENTRE: tl.constexpr, NEXT: tl.constexpr, OUTER: tl.constexpr):
    return CENTRE * c + (NEXT * (b + d) + OUTER * (a + e))


@triton.jit
def _filter_row(x_ptr, sh, sw, row, cols, H, W, step, CENTRE: tl.constexpr, NEXT: tl.constexpr, OUTER: tl.constexpr):
    """Return a row of a channel filtered along x, and as it was, in float32; zeros outside the image."""
    # a row outside the image has no columns: cheaper than a second mask over all of them
    width = tl.where((row >= 0) & (row < H), W, 0)
    x_ptr += row.to(tl.int64) * sh
    near, far = cols - step, cols - 2 * step
    a = tl.load(x_ptr + far * sw, mask=(far >= 0) & (far < width), other=0.0).to(tl.float32)
    b = tl.load(x_ptr + near * sw, mask=(near >= 0) & (near < width), other=0.0).to(tl.float32)
    c = tl.load(x_ptr + cols * sw, mask=cols < width, other=0.0).to(tl.float32)
    near, far = cols + step, cols + 2 * step
    d = tl.load(x_ptr + near * sw, mask=near < width, other=0.0).to(tl.float32)
    e = tl.load(x_ptr + far * sw, mask=far < width, other=0.0).to(tl.float32)
    return _five_taps(a, b, c, d, e, CENTRE, NEXT, OUTER), c


@triton.jit(do_not_specialize=[*_SIZES, "x_sb", "x_sc", "x_sh", "out_sb", "out_sc", "out_sh"])
def atrous_details_kernel(
    x_ptr,  # A_(level - 1), or x before the pre-blur: (B, C, H, W), any strides
    x_sb, x_sc, x_sh, x_sw,
    smooth_ptr,  # A_level: (B, C, H, W) float32, contiguous; written if HAS_SMOOTH
    out_ptr,  # D_level: (B, C, H, W), any strides; written if HAS_DETAIL
    out_sb, out_sc, out_sh, out_sw,
    C, H, W,
    step,  # pixels between taps
    CENTRE: tl.constexpr, NEXT: tl.constexpr, OUTER: tl.constexpr,  # taps
    HAS_SMOOTH: tl.constexpr, HAS_DETAIL: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    b, c, first, cols = _locate(C, H, W, step, ROWS, BLOCK)
    x_ptr += b * x_sb + c * x_sc
    smooth_ptr += (b * C + c) * H * W
    out_ptr += b * out_sb + c * out_sc
    zeros = tl.zeros((BLOCK,), tl.float32)
    # five rows filtered along x, and the last three of them unfiltered: the window that walks down
    f0, f1, f2, f3, f4, u2, u3, u4 = zeros, zeros, zeros, zeros, zeros, zeros, zeros, zeros
    for k in tl.static_range(ROWS + 4):
        f0, f1, f2, f3, u2, u3 = f1, f2, f3, f4, u3, u4
        f4, u4 = _filter_row(x_ptr, x_sh, x_sw, first + (k - 2) * step, cols, H, W, step, CENTRE, NEXT, OUTER)
        if k >= 4:
            row = first + (k - 4) * step
            inside = cols < tl.where(row < H, W, 0)
            smooth = _five_taps(f0, f1, f2, f3, f4, CENTRE, NEXT, OUTER)
            if HAS_SMOOTH:
                tl.store(smooth_ptr + row.to(tl.int64) * W + cols, smooth, mask=inside)
            if HAS_DETAIL:
                detail = (u2 - smooth).to(out_ptr.dtype.element_ty)
                tl.store(out_ptr + row.to(tl.int64) * out_sh + cols * out_sw, detail, mask=inside)


@triton.jit(do_not_specialize=[*_SIZES, "x_sb", "x_sc", "x_sh", "grad_sb", "grad_sc", "grad_sh", "out_sb", "out_sc",
                               "out_sh"])  # fmt: skip
def atrous_adjoint_kernel(
    x_ptr,  # gradient of A_level, or of its negative if NEGATED: (B, C, H, W), any strides
    x_sb, x_sc, x_sh, x_sw,
    own_ptr,  # gradient of D_level: (B, C, H, W), strides grad_s*; read if HAS_OWN
    finer_ptr,  # gradient of D_(level - 1): (B, C, H, W), strides grad_s*; read if HAS_FINER
    grad_sb, grad_sc, grad_sh, grad_sw,
    out_ptr,  # gradient of A_(level - 1), or of x behind the pre-blur: (B, C, H, W), any strides
    out_sb, out_sc, out_sh, out_sw,
    C, H, W,
    step,  # pixels between taps
    CENTRE: tl.constexpr, NEXT: tl.constexpr, OUTER: tl.constexpr,  # taps
    NEGATED: tl.constexpr, HAS_OWN: tl.constexpr, HAS_FINER: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    b, c, first, cols = _locate(C, H, W, step, ROWS, BLOCK)
    x_ptr += b * x_sb + c * x_sc
    own_ptr += b * grad_sb + c * grad_sc
    finer_ptr += b * grad_sb + c * grad_sc
    out_ptr += b * out_sb + c * out_sc
    zeros = tl.zeros((BLOCK,), tl.float32)
    f0, f1, f2, f3, f4 = zeros, zeros, zeros, zeros, zeros
    for k in tl.static_range(ROWS + 4):
        f0, f1, f2, f3 = f1, f2, f3, f4
        f4, _ = _filter_row(x_ptr, x_sh, x_sw, first + (k - 2) * step, cols, H, W, step, CENTRE, NEXT, OUTER)
        if k >= 4:
            row = first + (k - 4) * step
            grad = _five_taps(f0, f1, f2, f3, f4, CENTRE, NEXT, OUTER)
            if NEGATED:
                grad = -grad
            inside = cols < tl.where(row < H, W, 0)
            from_row = row.to(tl.int64) * grad_sh + cols * grad_sw
            if HAS_OWN:
                grad += tl.load(own_ptr + from_row, mask=inside, other=0.0).to(tl.float32)
            if HAS_FINER:
                grad -= tl.load(finer_ptr + from_row, mask=inside, other=0.0).to(tl.float32)
            to = out_ptr + row.to(tl.int64) * out_sh + cols * out_sw
            tl.store(to, grad.to(out_ptr.dtype.element_ty), mask=inside)


def _grid(x: Tensor, step: int) -> tuple[int]:
    """Return the number of programs of a stage: one dimension, for the other two end at 65535 planes."""
    b, c, h, w = x.shape
    return (b * c * triton.cdiv(h, step * ROWS) * step * triton.cdiv(w, BLOCK),)


def _float32_like(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=torch.float32, device=x.device)


def atrous_details(x: Tensor, out: Tensor, levels: int) -> None:
    """Write the details of ``x`` (B, C, H, W) into ``out`` (B, levels * C, H, W), finest level first.

    Both float32, float16 or bfloat16, any strides; ``levels`` + 1 launches, and two float32 images of scratch.
    """
    if x.numel() == 0:
        return
    channels = x.shape[1]
    source, scratch = x, [_float32_like(x) for _ in range(2)]
    # triton launches on torch's current device and stream
    with torch.cuda.device_of(x):
        for level in range(levels + 1):
            step = 2 ** max(level - 1, 0)
            smooth = scratch[level % 2]
            detail = out.narrow(1, max(level - 1, 0) * channels, channels)
            atrous_details_kernel[_grid(x, step)](
                source, *source.stride(), smooth, detail, *detail.stride(), *x.shape[1:], step,
                **(B3_SPLINE if level else GAUSSIAN), HAS_SMOOTH=level < levels, HAS_DETAIL=level > 0,
                ROWS=ROWS, BLOCK=BLOCK,
            )  # fmt: skip
            source = smooth


def atrous_details_backward(grad: Tensor, out: Tensor, levels: int) -> None:
    """Write the gradient of the image into ``out`` (B, C, H, W) from ``grad`` (B, levels * C, H, W).

    Both float32, float16 or bfloat16, any strides; ``levels`` + 1 launches, and two float32 images of scratch.
    """
    if out.numel() == 0:
        return
    grads = grad.chunk(levels, dim=1)
    source, scratch = grads[-1], [_float32_like(out) for _ in range(2)]
    with torch.cuda.device_of(grad):
        for level in range(levels, -1, -1):
            step = 2 ** max(level - 1, 0)
            target = scratch[level % 2] if level else out
            own, finer = grads[max(level - 1, 0)], grads[max(level - 2, 0)]
            atrous_adjoint_kernel[_grid(out, step)](
                source, *source.stride(), own, finer, *grad.stride(), target, *target.stride(), *out.shape[1:], step,
                **(B3_SPLINE if level else GAUSSIAN),
                NEGATED=level == levels, HAS_OWN=level > 0, HAS_FINER=level > 1, ROWS=ROWS, BLOCK=BLOCK,
            )  # fmt: skip
            source = target

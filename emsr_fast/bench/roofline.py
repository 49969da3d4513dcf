"""The arithmetic and memory traffic of a network, and the limits of a machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from emsr_fast.model.config import EmsrConfig

# products per output and pair of channels: F(6x6, 3x3) makes 8x8 for 6x6 (csrc/cpu/winograd.h)
_DIRECT, _WINOGRAD = 9.0, 64 / 36


@dataclass(frozen=True)
class Work:
    """The work of a network per LR pixel."""

    published_flop: float  # a multiply-add is two
    kernel_flop: float  # products of our kernels alone: their transforms and epilogues come on top
    kernel_bytes: float  # features our operators read and write, if nothing stays in a cache


def work_of(config: EmsrConfig, *, winograd: bool) -> Work:
    """Return the work per LR pixel of ``config``; ``winograd``: whether our CPU kernels run it."""
    c, scale, levels = config.features, config.scale, config.levels
    tokens = config.window**2
    # dense kernels with zeros between the taps, as published, for the input and once per block
    atrous = 25 + sum((4 * 2**level + 1) ** 2 for level in range(levels))
    images = 9 * c * (config.blocks + 1) + atrous * (config.blocks + 1) + 9 * 2 * levels * c * config.blocks
    dense = c * c * (4 + 2 * config.mlp_ratio) + 2 * tokens * c + 2 * c * c  # transformer; 1x1 of the two gates
    square = 8 + 4 + 4 + 2 * 3 + 1 + 1  # 3x3 convolutions C to C of a block
    if scale == 4:
        up, folded = 9 * c * c * 4 * (1 + 4) + 9 * c * 16, None
    else:
        up = 9 * c * c * scale**2 + 9 * c * scale**2
        folded = 25 * c * scale**2
    rest = images + config.blocks * dense
    published = rest + config.blocks * square * _DIRECT * c * c + up
    per_square = _WINOGRAD if winograd else _DIRECT
    kernels = rest + config.blocks * square * per_square * c * c
    kernels += folded if winograd and folded is not None else up
    # conv-relu 2, conv-add 3, in 8 residual blocks; to_image 3, from_edges 1, gates 2 x (2 + 3), transformer and conv 4
    tensors = config.blocks * (8 * 5 + 3 + 1 + 10 + 4) + 1 + 2
    return Work(2.0 * published, 2.0 * kernels, 4.0 * c * tensors)


def peak_flops(device: torch.device, side: int = 2048, repeats: int = 5) -> float:
    """Return the most float32 operations per second seen in a product of two matrices of ``side``, torch's threads.

    On a CPU a large product runs its multiply-add units at nearly their peak.
    """
    a, b = torch.rand(2, side, side, device=device)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        return 2 * side**3 / _least_seconds(lambda: torch.mm(a, b), repeats, device)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def bandwidth(device: torch.device, megabytes: int = 256, repeats: int = 5) -> float:
    """Return the most bytes per second, read and written, seen in a copy of ``megabytes``, more than caches hold."""
    source = torch.rand(megabytes * 1_000_000 // 4, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _least_seconds(lambda: target.copy_(source), repeats, device)


def _least_seconds(run: Callable[[], object], repeats: int, device: torch.device) -> float:
    least = float("inf")
    for _ in range(repeats + 1):  # the first warms up; it is never the least
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        least = min(least, time.perf_counter() - start)
    return least

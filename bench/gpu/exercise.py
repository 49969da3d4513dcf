"""Every operator once on each GPU backend, at small odd shapes: what compute-sanitizer watches.

compute-sanitizer python bench/gpu/exercise.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from emsr_fast import (
    BackendError,
    _backends,
    atrous_details,
    conv3x3,
    edge_gate,
    residual_block,
    upsample_to_image,
    window_attention,
)
from emsr_fast.ops import OPERATORS

BACKENDS = ("cuda", "triton")
SIZES = ((1, 3), (9, 70), (37, 133))
Call = Callable[[str], Tensor]


def parameters(*shapes: tuple[int, ...], device: str, dtype: torch.dtype) -> list[Tensor]:
    return [(torch.randn(shape, device=device) / 24).to(dtype) for shape in shapes]


def calls(size: tuple[int, int], device: str, dtype: torch.dtype, batch: int = 2) -> Iterator[tuple[str, str, Call]]:
    """Yield the name of each operator, its channels, and a call of it on a backend."""
    c = 64
    (x,) = parameters((batch, c, *size), device=device, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    few, image = x[:, :6].contiguous(), x[:, :1].contiguous()
    weight, first, last, k2, bias, up = parameters(
        *((c, c, 3, 3), (c, 6, 3, 3), (1, c, 3, 3), (c, c, 1, 1), (c,), (9 * c, c, 3, 3)), device=device, dtype=dtype
    )
    block = parameters(
        *((c,), (c,), (3 * c, c), (c, c), (c,), (c,), (c,), (2 * c, c), (2 * c,), (c, 2 * c), (c,)),
        device=device,
        dtype=dtype,
    )
    yield "atrous_details", "3 levels", lambda backend: atrous_details(image, 3, backend=backend)
    yield "conv3x3", "64 to 64", lambda backend: conv3x3(x, weight, activation="relu", residual=x, backend=backend)
    yield "conv3x3", "6 to 64", lambda backend: conv3x3(few, first, backend=backend)
    yield "conv3x3", "64 to 1", lambda backend: conv3x3(x, last, backend=backend)
    yield "edge_gate", "64", lambda backend: edge_gate(x, weight, k2, bias, weight, backend=backend)
    yield "residual_block", "64", lambda backend: residual_block(x, weight, weight, backend=backend)
    yield "upsample_to_image", "64, x3", lambda backend: upsample_to_image(x, up, last, 3, backend=backend)
    yield "window_attention", "64", lambda backend: window_attention(x, *block, heads=16, backend=backend)


def exercise(device: str, backends: tuple[str, ...], dtype: torch.dtype, on_request: bool = False) -> list[str]:
    """Run what the backends have; return "operator backend" of each run.

    Kernels that "auto" leaves alone run ``on_request`` only: one that stops the GPU does so for the whole process.
    """
    torch.manual_seed(0)
    done = []
    for size in SIZES:
        for operator, _, call in calls(size, device, dtype):
            for backend in backends:
                if (backend in OPERATORS[operator].on_request) != on_request:
                    continue
                if backend not in OPERATORS[operator].backends or _backends.why_not_here(backend):
                    continue
                try:
                    with torch.inference_mode():
                        out = call(backend)
                except BackendError:
                    continue  # no kernel for these channels, or for this GPU
                if not torch.isfinite(out).all():
                    raise SystemExit(f"{operator} on {backend} at {size}: not finite")
                done.append(f"{operator} {backend}")
    return done


if __name__ == "__main__":
    ran = exercise("cuda", BACKENDS, torch.float16)
    print(f"{len(ran)} runs: {', '.join(sorted(set(ran)))}", flush=True)
    asked = exercise("cuda", BACKENDS, torch.float16, on_request=True)
    print(f"on request, {len(asked)} runs: {', '.join(sorted(set(asked)))}")

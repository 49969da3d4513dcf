"""Which backend runs a call, and why the others do not."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from emsr_fast import _native
from emsr_fast.errors import BackendError
from emsr_fast.installing import install_line

Fact = TypeVar("Fact", bound=Callable[..., Any])

BACKENDS = ("cuda", "triton", "cpp", "reference")  # fastest first; reference always runs

# the backends each operator has
OPERATORS = {
    "atrous_details": BACKENDS,
    "conv3x3": BACKENDS,
    "edge_gate": ("triton", "cpp", "reference"),
    "residual_block": BACKENDS,  # one kernel on "cuda", two of conv3x3 on the others
    "upsample_to_image": ("triton", "cpp", "reference"),
    "window_attention": BACKENDS,
}
# kernels that rest on what only a GPU can show (descriptors of wgmma, barriers of their own): until one has, they run
# where they are named (backend=, EMSR_FAST_BACKEND), never by "auto"
ON_REQUEST = {"conv3x3": ("cuda",), "residual_block": ("cuda",)}
_DTYPES = {
    "cuda": (torch.float32, torch.float16, torch.bfloat16),
    "triton": (torch.float32, torch.float16, torch.bfloat16),
    "cpp": (torch.float32, torch.float64),
}


def _checked(names: str) -> tuple[str, ...]:
    """Split and check a comma-separated preference; "auto" is none."""
    wanted = tuple(name.strip() for name in names.split(",") if name.strip())
    for name in wanted:
        if name not in ("auto", *BACKENDS):
            raise BackendError(f"backend {name!r} is unknown: use auto or some of {', '.join(BACKENDS)}")
    return () if wanted in ((), ("auto",)) else wanted


_preferred: tuple[str, ...] | None = None  # None: not read yet


def preferred() -> tuple[str, ...]:
    """Return the backends that ``backend="auto"`` is limited to, in order; empty: no limit.

    From the environment variable EMSR_FAST_BACKEND at first use, or from ``use_backend``.
    """
    global _preferred
    if _preferred is None:
        _preferred = _checked(os.environ.get("EMSR_FAST_BACKEND", ""))
    return _preferred


@contextmanager
def use_backend(names: str) -> Iterator[None]:
    """Limit ``backend="auto"`` to ``names`` (one, or several in order, comma-separated) inside a ``with`` block."""
    global _preferred
    before = _preferred
    _preferred = _checked(names)
    try:
        yield
    finally:
        _preferred = before


def constant_when_compiled(function: Fact) -> Fact:
    """Mark a function of facts of the machine: torch.compile takes its result as a constant instead of tracing it.

    The same as ``torch.compiler.assume_constant_result``, which imports torch._dynamo: 2 s of every command.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@functools.cache
def _why_no_triton() -> str | None:
    if importlib.util.find_spec("triton") is None:
        return f"triton is not installed ({install_line('triton')})"
    return None if torch.cuda.is_available() else "triton needs a CUDA device, torch sees none"


@constant_when_compiled
def why_not_here(backend: str) -> str | None:
    """Return why ``backend`` cannot run on this machine, whatever the input, or None if it can."""
    if backend == "cpp":
        return _native.why_no_cpu()
    if backend == "cuda":
        return _native.why_no_cuda()
    if backend == "triton":
        return _why_no_triton()
    return None


@constant_when_compiled
def compute_capability(device: torch.device) -> tuple[int, int]:
    """Return the compute capability of a CUDA device, as (9, 0)."""
    return torch.cuda.get_device_capability(device)


@constant_when_compiled
def wrong_instruction_set() -> str | None:
    """Return why the instruction set that EMSR_FAST_CPU_ISA asks for cannot run, or None."""
    asked = os.environ.get("EMSR_FAST_CPU_ISA") and not _native.why_missing
    return _native.why_no_cpu() if asked else None


def why_not(backend: str, operator: str, x: Tensor) -> str | None:
    """Return why ``backend`` cannot run ``operator`` on ``x``, or None if it can.

    What only an operator knows (channels, levels) is asked by the operator, through ``limits`` of ``choose``.
    """
    if backend == "reference":
        return None
    if backend not in OPERATORS[operator]:
        return f"{operator} has no {backend} kernel"
    if x.device.type != ("cpu" if backend == "cpp" else "cuda"):
        return f"x is on {x.device}, {backend} needs {'the CPU' if backend == 'cpp' else 'a CUDA device'}"
    if reason := why_not_here(backend):
        return reason
    return None if x.dtype in _DTYPES[backend] else f"{backend} has no {x.dtype} kernel"


def choose(
    operator: str, x: Tensor, backend: str = "auto", limits: str | Mapping[str, str | None] | None = None
) -> str:
    """Return the backend that runs ``operator`` on ``x``: the one asked for, or the first that can.

    Args:
        operator: a key of ``OPERATORS``.
        backend: "auto" or one of ``BACKENDS``.
        limits: what keeps every backend but the reference from running this call, or each by its name; None: nothing.

    Raises:
        BackendError: the backend asked for, here or by EMSR_FAST_BACKEND, is unknown or cannot run; says why.
    """
    wanted = preferred() if backend == "auto" else _checked(backend)
    if backend == "auto" and (wrong := wrong_instruction_set()):
        # asked for by a variable, so not to be passed over
        raise BackendError(wrong)
    reasons = []
    for name in wanted or [b for b in OPERATORS[operator] if b not in ON_REQUEST.get(operator, ())]:
        own = limits.get(name) if isinstance(limits, Mapping) else limits if name != "reference" else None
        reason = why_not(name, operator, x) or own
        if reason is None:
            return name
        reasons.append(f"backend {name!r} cannot run: {reason}")
    raise BackendError("; ".join(reasons) + "; several may be given in order, as in cuda,reference")


def why_slow(device: torch.device) -> str | None:
    """Return why float32 networks run on the reference at ``device``, and what to do; None if they do not.

    None too where the reference was asked for, by ``use_backend`` or EMSR_FAST_BACKEND.
    """
    if "reference" in preferred() or kernels_on(device) != "reference":
        return None
    if device.type == "cpu":
        reason, remedy = why_not_here("cpp"), f"to build them, with a C++ compiler: {install_line()}"
    else:
        reason, remedy = why_not_here("triton"), "with triton they run"
    return (
        f"the slow reference runs instead of the compiled kernels: {reason}; {remedy}; "
        "EMSR_FAST_BACKEND=reference asks for it and ends this note"
    )


def kernels_on(device: torch.device) -> str:
    """Return the backend that float32 networks run their operators on at ``device``, with the CPU's instruction set."""
    chosen = choose("atrous_details", torch.empty(1, 1, 1, 1, device=device))
    return f"cpp, {_native.cpu_isa()}" if chosen == "cpp" else chosen

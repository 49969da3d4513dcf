"""The backends: which ones exist, run on this machine, and are preferred."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from emsr_fast import _native
from emsr_fast.errors import BackendError
from emsr_fast.installing import install_line
from emsr_fast.ownership import why_not_our_folder

Fact = TypeVar("Fact", bound=Callable[..., Any])

BACKENDS = ("cuda", "triton", "cpp", "reference")  # fastest first; reference always runs

_DEVICES = {"cuda": "cuda", "triton": "cuda", "cpp": "cpu"}
_DTYPES = {
    "cuda": (torch.float32, torch.float16, torch.bfloat16),
    "triton": (torch.float32, torch.float16, torch.bfloat16),
    "cpp": (torch.float32, torch.float64),
}


def constant_when_compiled(function: Fact) -> Fact:
    """Mark a function about the machine: torch.compile takes its result as a constant instead of tracing it.

    ``torch.compiler.assume_constant_result`` does the same, but imports torch._dynamo, which takes every command 2 s.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def _checked(names: str) -> tuple[str, ...]:
    """Split and check a comma-separated preference; "auto" is none."""
    wanted = tuple(name.strip() for name in names.split(",") if name.strip())
    for name in wanted:
        if name not in ("auto", *BACKENDS):
            raise BackendError(f"backend {name!r} is unknown: use auto or some of {', '.join(BACKENDS)}")
    return () if wanted in ((), ("auto",)) else wanted


# None: outside every block of use_backend
_in_block: ContextVar[tuple[str, ...] | None] = ContextVar("use_backend", default=None)


@functools.cache
def _from_environment() -> tuple[str, ...]:
    return _checked(os.environ.get("EMSR_FAST_BACKEND", ""))


@constant_when_compiled
def preferred() -> tuple[str, ...]:
    """Return the backends that ``backend="auto"`` is limited to, in order; empty: no limit.

    They come from ``use_backend`` in this thread or task, else from the environment variable EMSR_FAST_BACKEND, which
    is read once. Code of torch.compile keeps the answer from when it was compiled.
    """
    wanted = _in_block.get()
    return _from_environment() if wanted is None else wanted


@contextmanager
def use_backend(names: str) -> Iterator[None]:
    """Limit ``backend="auto"`` to ``names`` (one, or several in order, comma-separated) inside a ``with`` block.

    It holds in this thread or asyncio task only: others, and threads started inside the block, keep their own.
    """
    before = _in_block.set(_checked(names))
    try:
        yield
    finally:
        _in_block.reset(before)


def triton_cache() -> Path:
    """Return the folder of the kernels that Triton has compiled, by Triton's rules."""
    if named := os.environ.get("TRITON_CACHE_DIR"):
        return Path(named)
    return Path(os.environ.get("TRITON_HOME") or "~").expanduser() / ".triton" / "cache"


@functools.cache
def _why_no_triton() -> str | None:
    if importlib.util.find_spec("triton") is None:
        return f"triton is not installed ({install_line('triton')})"
    # what it has compiled is loaded from there, and runs
    folder = triton_cache()
    if reason := why_not_our_folder(folder):
        return f"its cache {folder} is not safe: {reason}; set TRITON_CACHE_DIR to a folder that only you can write to"
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


@functools.cache
def _wrong_instruction_set() -> str | None:
    # the kernels read the variable once, too
    asked = os.environ.get("EMSR_FAST_CPU_ISA") and not _native.why_missing
    return _native.why_no_cpu() if asked else None


@constant_when_compiled
def wrong_instruction_set() -> str | None:
    """Return why the instruction set that EMSR_FAST_CPU_ISA asks for cannot run, or None."""
    return _wrong_instruction_set()


def why_not(backend: str, x: Tensor) -> str | None:
    """Return why no kernel of ``backend`` can run on ``x``, or None if one may: machine, device and dtype.

    ``ops.OPERATORS[name].why_not`` checks the operator's own limits (channels, levels), too.
    """
    if backend == "reference":
        return None
    if x.device.type != _DEVICES[backend]:
        return f"x is on {x.device}, {backend} needs {'the CPU' if backend == 'cpp' else 'a CUDA device'}"
    if reason := why_not_here(backend):
        return reason
    return None if x.dtype in _DTYPES[backend] else f"{backend} has no {x.dtype} kernel"


def candidates(backend: str, automatic: Sequence[str]) -> Sequence[str]:
    """Return the backends to try, in order: those asked for by ``backend`` or a preference, else ``automatic``.

    Raises:
        BackendError: a name is unknown, or the instruction set in EMSR_FAST_CPU_ISA cannot run.
    """
    if backend != "auto":
        return _checked(backend) or automatic
    if wrong := wrong_instruction_set():
        # asked for by a variable, so not to be passed over
        raise BackendError(wrong)
    return preferred() or automatic


def as_asked(backend: str) -> str:
    """Return ``backend``, or for "auto" the preferred backends of this thread, for a later call in another thread."""
    return backend if backend != "auto" else ",".join(preferred()) or "auto"


def refusal(reasons: Mapping[str, str | None]) -> BackendError:
    """Return the error that says why each of the backends asked for cannot run."""
    each = "; ".join(f"backend {name!r} cannot run: {reason}" for name, reason in reasons.items())
    return BackendError(f"{each}; several may be given in order, as in cuda,reference")


def why_slow(device: torch.device) -> str | None:
    """Return why float32 networks on ``device`` run on the reference, and what to do; None if they do not.

    It is None, too, if the reference was asked for, by ``use_backend`` or EMSR_FAST_BACKEND.
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
    """Return the backend of float32 networks on ``device``, with the CPU's instruction set."""
    x = torch.empty(1, 1, 1, 1, device=device)
    reasons = {name: why_not(name, x) for name in candidates("auto", BACKENDS)}
    chosen = next((name for name, reason in reasons.items() if reason is None), None)
    if chosen is None:
        raise refusal(reasons)
    return f"cpp, {_native.cpu_isa()}" if chosen == "cpp" else chosen

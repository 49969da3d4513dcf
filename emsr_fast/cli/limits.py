"""Limits of the system on threads and memory: one line says so, before they end the process silently."""

from __future__ import annotations

import errno
import os
import resource
import threading

from emsr_fast.errors import BackendError
from emsr_fast.threads import Thread

_OURS = 4  # threads that read, write and scale grey values, and zarr's own: less than any command needs
_MOST_EACH = 64  # threads of OpenBLAS and of OpenMP that are tried: to start them takes milliseconds
_SIGNS = ("can't start new thread", os.strerror(errno.EAGAIN), os.strerror(errno.ENOMEM), "failed to map segment")


def refuse_too_few_threads() -> None:
    """Raise BackendError where the system does not allow the threads that NumPy, PyTorch and this package start.

    It is called before NumPy and PyTorch are imported: they end the process if one of their threads does not start.
    """
    # OpenBLAS and OpenMP have one thread for each core or as many as this variable says, beside the main one
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    # a job has fewer cores than its machine; not every system tells
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    each = min(int(asked) if asked.isdecimal() and len(asked) < 10 else cores, _MOST_EACH)
    enough = threading.Event()
    started: list[Thread] = []
    try:
        for _ in range(2 * (each - 1) + _OURS):
            started.append(Thread(enough.wait, "emsr-limit", daemon=True))
    except RuntimeError as error:
        raise BackendError(told(error) or str(error)) from error
    finally:
        enough.set()
        for thread in started:
            thread.wait()


def told(error: Exception) -> str | None:
    """Return the line for an error that a limit of the system caused; None for any other."""
    if isinstance(error, OSError):
        sign = error.strerror if error.errno in (errno.EAGAIN, errno.ENOMEM) else None
    elif isinstance(error, (RuntimeError, ImportError)):
        # NumPy's error on import has twenty lines
        sign = next((sign for sign in _SIGNS if sign in str(error)), None)
    else:
        limited = resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
        sign = os.strerror(errno.ENOMEM) if limited and isinstance(error, MemoryError) else None
    if sign is None:
        return None
    return (
        f"the system allows no more threads or memory ({sign}); raise the limit (ulimit -u, ulimit -v, or that of the "
        "container or job), or set OMP_NUM_THREADS=1"
    )

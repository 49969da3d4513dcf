"""The processes of a run, and the signals that stop it between two steps."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist


@contextmanager
def processes() -> Iterator[tuple[int, int]]:
    """Join the processes that torchrun started, if any; yield this process's rank and their number."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes == 1:
        yield 0, 1
        return
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield dist.get_rank(), processes
        # the first one still validates: leave together
        dist.barrier()
    finally:
        dist.destroy_process_group()


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """Collect Ctrl-C, SIGTERM and SIGHUP instead of dying in mid-step; a second one ends the program at once."""
    requests: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    def remember(number: int, frame: object) -> None:
        requests.append(number)
        for other, handler in before.items():
            signal.signal(other, handler)

    for number in before:
        signal.signal(number, remember)
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

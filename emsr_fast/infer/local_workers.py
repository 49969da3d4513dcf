"""Workers of dask.distributed on this machine: processes that are started again when they are killed.

dask's LocalCluster is not used: its workers get the terminal's Ctrl-C and print tracebacks, each runs the user's script
again, and the end waits for them up to four seconds.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from emsr_fast.errors import BackendError
from emsr_fast.threads import Thread

if TYPE_CHECKING:
    from distributed import Client

_LOOK_EVERY_S = 0.1
# the same modules as ours, also where the working folder holds others of these names
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from emsr_fast.infer.distributed import stop_all_runs; "
    "from emsr_fast.infer.local_workers import work; work(sys.argv[2], int(sys.argv[3]), stop_all_runs)"
)


@contextmanager
def local_workers(count: int) -> Iterator[Client]:
    """Yield a client of ``count`` new workers of one thread each; they end with the context, whatever they are doing.

    Raises:
        BackendError: one ended before it could be used.
    """
    from distributed import Client, LocalCluster

    # not for the time of the cluster only: connections are closed, and say so, after it
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    # the scheduler alone, in a thread of this process
    with (
        LocalCluster(n_workers=0, dashboard_address=None, silence_logs=logging.CRITICAL) as cluster,
        _processes(cluster.scheduler, count),
        Client(cluster) as client,
    ):
        yield client


@contextmanager
def _processes(scheduler: Any, count: int) -> Iterator[None]:
    processes = [_start(scheduler.address, number) for number in range(count)]
    ending = threading.Event()

    def start_again() -> None:
        while not ending.wait(_LOOK_EVERY_S):
            for number, process in enumerate(processes):
                if process.poll() is not None:
                    processes[number] = _start(scheduler.address, number)

    guard = None
    try:
        while len(scheduler.workers) < count:
            for process in processes:
                if process.poll() is not None:
                    raise BackendError(f"a worker ended with exit code {process.returncode} before it could be used")
            time.sleep(_LOOK_EVERY_S)
        guard = Thread(start_again, "emsr-workers", daemon=True)
        yield
    finally:
        ending.set()
        if guard is not None:
            guard.wait()
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def _start(address: str, number: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", _PROGRAM, json.dumps(sys.path), address, str(number)]
    # in a session of its own: Ctrl-C in the terminal is for the command
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)


def work(address: str, number: int, stop: Callable[[], None]) -> None:
    """Run as worker ``number`` of the scheduler at ``address`` until the scheduler is gone.

    Args:
        stop: is called before the worker closes.
    """
    from distributed import Worker as DaskWorker

    class SavingWorker(DaskWorker):
        async def close(self, *arguments: Any, **options: Any) -> Any:
            stop()  # what is running saves what it has done, which the rest of closing waits for
            return await super().close(*arguments, **options)

    async def run() -> None:
        # memory is bounded by the plan; dask's own limit would kill workers that are within it
        async with SavingWorker(address, name=number, nthreads=1, memory_limit=0, dashboard=False) as worker:
            await worker.finished()

    # the command is stopped, not its workers, which it tells
    for sent in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sent, signal.SIG_IGN)
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    asyncio.run(run())

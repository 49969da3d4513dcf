"""The blocks of a run are shared out to workers of dask.distributed, which all see the same file system.

A task is a batch of neighbouring blocks, so that the scheduler has thousands of tasks where there are
millions of blocks. A worker that is killed costs the block it was at: the others of its batch are there, and whoever is
given the batch next sees that.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsr_fast.errors import BackendError, EmsrError, UsageError
from emsr_fast.infer.statistics import Statistics
from emsr_fast.installing import lacking
from emsr_fast.io.selection import whole_number
from emsr_fast.wording import counted, quoted

if TYPE_CHECKING:
    from distributed import Client

    from emsr_fast.infer.worker import Worker

_BATCHES_PER_WORKER = 8  # at least, so that all workers end at about the same time
_LARGEST_BATCH = 64
_WAITING_PER_WORKER = 3  # tasks with the scheduler; the rest of them is not made yet
_RETRIES = 2
_LOOK_EVERY_S = 0.05

# of a dask worker's process: one worker of ours, one batch at a time, and which commands were stopped
_opened: dict[str, Worker] = {}
_one_at_a_time = threading.Lock()
_running: set[str] = set()
_stopped: set[str] = set()
_ALL = "all"


class _Stopped(BaseException):
    """The command that sent this batch was stopped."""


def run_on_dask(
    where: str,
    worker: Worker,
    numbers: list[int],
    device: str,
    say: Callable[[str], None],
    progress: Callable[[int], None],
) -> Statistics:
    """Compute the blocks ``numbers`` of the output of ``worker`` on a cluster; return what was done.

    Args:
        where: "local:N" for N processes of this machine, an address "tcp://host:port", or a scheduler file.
        device: for the workers; "auto" gives the N local workers the machine's GPUs in turn, if it has any.

    Raises:
        UsageError: dask is not installed, or ``where`` is no cluster.
        BackendError: workers died again and again on the same blocks.
    """
    statistics, final, command = Statistics(), str(worker.work.final), secrets.token_hex(8)
    worker.work.files.write_for(command)
    with _client(where) as client:
        client.wait_for_workers(1)
        dask_workers = max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
        say(f"dask    {counted(dask_workers, 'worker')}")
        batches, window = batches_of(numbers, dask_workers), _WAITING_PER_WORKER * dask_workers
        try:
            for batch, done in results_of_batches(client, run_batch, batches, (final, device, command), window):
                statistics.add(done)
                progress(sum(map(worker.lr_pixels_to_do, batch)))
        except Exception:
            raise
        except BaseException:
            say("note    the workers save what is done of their blocks; a second Ctrl-C ends at once")
            client.run(stop_run, command, on_error="return")  # a worker that has died meanwhile stops nobody
            raise
    return statistics


def batches_of(numbers: list[int], workers: int) -> Iterator[list[int]]:
    """Yield neighbouring blocks together: at most 64, and where there are enough, 8 batches or more for each worker."""
    size = max(1, min(_LARGEST_BATCH, len(numbers) // (_BATCHES_PER_WORKER * workers)))
    for first in range(0, len(numbers), size):
        yield numbers[first : first + size]


def results_of_batches(
    client: Client, work: Callable[..., Any], batches: Iterator[list[int]], arguments: tuple[Any, ...], window: int
) -> Iterator[tuple[list[int], Any]]:
    """Yield each batch with what ``work(*arguments, batch)`` returned for it, at most ``window`` at a time.

    Raises:
        BackendError: workers died again and again on a batch. Errors of ``work`` are raised as they are.
    """
    from distributed import KilledWorker, as_completed

    waiting: dict[Any, list[int]] = {}
    finished = as_completed()

    def submit() -> bool:
        batch = next(batches, None)
        if batch is None:
            return False
        future = client.submit(work, *arguments, batch, pure=False, retries=_RETRIES)
        waiting[future] = batch
        finished.add(future)
        return True

    while len(waiting) < window and submit():
        pass
    for future in finished:
        batch = waiting.pop(future)
        try:
            result = future.result()
        except KilledWorker as error:
            raise BackendError(
                f"several workers died on blocks {batch[0]} to {batch[-1]}; look into their logs, "
                "or give them more memory or a smaller `max_memory`"
            ) from error
        if isinstance(result, EmsrError):
            raise result
        yield batch, result
        submit()


def run_batch(final: str, device: str, command: str, numbers: list[int]) -> Statistics | EmsrError:
    """Do blocks of the output ``final`` in a worker; return what was done, or why it is useless to try again.

    Args:
        command: whose batch this is, see ``stop_run``; a stopped one's is left where it is.
    """
    from emsr_fast.infer.worker import Worker
    from emsr_fast.infer.workfolder import WorkFolder

    def check(lr_pixels: int = 0) -> None:
        if not _stopped.isdisjoint((command, _ALL)):
            raise _Stopped

    with _one_at_a_time:
        _running.add(command)
        try:
            check()
            key = json.dumps([final, device, WorkFolder(Path(final)).run().checksum])
            if key not in _opened:
                _set_threads()
                _opened.clear()
                _opened[key] = Worker.open(Path(final), _own_device(device))
            _opened[key].work.files.write_for(command)
            return _opened[key].run(numbers, check)
        except EmsrError as error:
            return error
        except _Stopped:
            return Statistics()
        finally:
            _running.discard(command)


async def stop_run(command: str) -> None:
    """Make this worker stop working for ``command``: finish the current tile, save the block, take no other."""
    _stopped.add(command)
    while command in _running:
        await asyncio.sleep(_LOOK_EVERY_S)


def stop_all_runs() -> None:
    """Make this worker stop all its work after the current tile, and take no other."""
    _stopped.add(_ALL)


def _set_threads() -> None:
    """Let torch use as many threads as dask gave the worker."""
    import torch
    from distributed import get_worker

    torch.set_num_threads(get_worker().state.nthreads)


def _own_device(device: str) -> str:
    """Return the GPU of this worker: the numbered workers of a local cluster take the machine's GPUs in turn."""
    import torch
    from distributed import get_worker

    name = get_worker().name
    if device not in ("auto", "cuda") or not isinstance(name, int) or not torch.cuda.is_available():
        return device
    return f"cuda:{name % torch.cuda.device_count()}"


@contextmanager
def _client(where: str) -> Iterator[Client]:
    try:
        from distributed import Client

        from emsr_fast.infer.local_workers import local_workers
    except ImportError as error:
        raise UsageError(lacking("`dask`", "dask")) from error
    kind, _, count = where.partition(":")
    if kind == "local":
        workers = whole_number(count)
        if not workers:
            raise UsageError(f"`dask` is {quoted(where)}; give local:N with the number of workers, such as local:4")
        with local_workers(workers) as client:
            yield client
        return
    address = {"address": where} if "://" in where else {"scheduler_file": _scheduler_file(where)}
    try:
        connected = Client(**address)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"`dask` is {quoted(where)}, and no scheduler answers there ({error}); give local:N, tcp://host:port or a "
            "scheduler file"
        ) from error
    with connected as client:
        yield client


def _scheduler_file(where: str) -> str:
    if not Path(where).is_file():
        raise UsageError(f"`dask` is {where!r}; give local:N, tcp://host:port or an existing scheduler file")
    return where

"""Two threads beside the main one: one works ahead of it, the other behind it; both wait while it is slower."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from queue import Empty, Full, Queue
from typing import Generic, TypeVar

from emsr_fast.threads import Thread

T = TypeVar("T")
_END = object()
_POLL_S = 0.1  # how soon a thread that waits notices that the others have stopped


@contextmanager
def produced_ahead(items: Iterable[T], depth: int) -> Iterator[Iterator[T]]:
    """Yield an iterator over ``items``, which another thread produces, at most ``depth`` in advance.

    An exception of the producer is raised in place of the item that failed. Leaving the context stops the producer.
    """
    queue: Queue[object] = Queue(depth)
    stopped = threading.Event()
    errors: list[BaseException] = []

    def put(item: object) -> bool:
        while not stopped.is_set():
            try:
                queue.put(item, timeout=_POLL_S)
                return True
            except Full:
                continue
        return False

    def produce() -> None:
        try:
            for item in items:
                if not put(item):
                    return
        except BaseException as error:  # handed to the consumer
            errors.append(error)
        put(_END)

    def consume() -> Iterator[T]:
        while (item := queue.get()) is not _END:
            yield item  # type: ignore[misc]
        if errors:
            raise errors[0]

    thread = Thread(produce, "emsr-read")
    try:
        yield consume()
    finally:
        stopped.set()
        thread.wait()


class BackgroundConsumer(Generic[T]):
    """Calls ``work`` on each item in order, in another thread; at most ``depth`` items wait."""

    def __init__(self, work: Callable[[T], None], depth: int) -> None:
        self._work = work
        self._queue: Queue[object] = Queue(depth)
        self._errors: list[BaseException] = []
        self._stopped = threading.Event()
        self._thread = Thread(self._follow, "emsr-write")

    def give(self, item: T) -> None:
        """Queue ``item``; wait while ``depth`` others are waiting. Raises what ``work`` raised on an earlier one."""
        self._put(item)

    def finish(self) -> None:
        """Wait until all is worked on. Raises what ``work`` raised."""
        self._put(_END)
        self._thread.wait()
        self._raise()

    def stop(self) -> None:
        """Wait for the item being worked on, and leave the others; harmless after ``finish``."""
        self._stopped.set()
        self._thread.wait()

    def _put(self, item: object) -> None:
        while True:
            self._raise()
            try:
                return self._queue.put(item, timeout=_POLL_S)
            except Full:
                continue

    def _raise(self) -> None:
        if self._errors:
            raise self._errors[0]

    def _follow(self) -> None:
        while not self._stopped.is_set():
            try:
                item = self._queue.get(timeout=_POLL_S)
            except Empty:
                continue
            if item is _END:
                return
            try:
                self._work(item)  # type: ignore[arg-type]
            except BaseException as error:  # handed to the giver
                self._errors.append(error)
                return

"""Threads that are waited for to their end, also when a signal arrives meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable

_POLL_S = 0.1


class Thread:
    """Calls ``work`` in a thread of its own, which starts at once.

    ``threading.Thread.join`` is not used: if a signal's exception interrupts it, Python 3.11 and 3.12 take the running
    thread for one that has ended. A second ``join`` then returns at once, and the thread goes on writing.
    """

    def __init__(self, work: Callable[[], object], name: str, *, daemon: bool = False) -> None:
        """Start the thread.

        Args:
            daemon: whether Python may end while it runs.
        """
        self._work, self._ended, self._running = work, False, threading.Lock()
        self._running.acquire()
        threading.Thread(target=self._run, name=name, daemon=daemon).start()

    def ends_within(self, seconds: float) -> bool:
        """Wait at most so long; return whether the thread has ended."""
        # whoever gets the lock keeps it: by then the thread has ended
        return self._ended or self._running.acquire(timeout=seconds) or self._ended

    def wait(self) -> None:
        """Wait until the thread has ended. What interrupts the waiting is raised after that."""
        interruption: BaseException | None = None
        while not self._ended:
            try:
                self.ends_within(_POLL_S)
            except BaseException as raised:
                interruption = interruption or raised
        if interruption is not None:
            raise interruption

    def _run(self) -> None:
        try:
            self._work()
        finally:
            self._ended = True
            self._running.release()

"""Holds signals back during a step that they must not interrupt."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def shielded_from_signals() -> Iterator[None]:
    """Hold back Ctrl-C, SIGTERM and SIGHUP until the block ends."""
    # only the main thread receives signals, and only it may change their handlers
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pending: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        pending.append(number)

    # handlers set outside Python read as None and cannot be put back: leave those alone
    known = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    held: list[int] = [number for number in known if signal.getsignal(number) is not None]
    before = {number: signal.signal(number, remember) for number in held}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in pending[:1]:
            signal.raise_signal(number)

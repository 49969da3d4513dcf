"""Several items in flight: new ones are submitted while the oldest is awaited."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TypeVar

Item = TypeVar("Item")
Ticket = TypeVar("Ticket")
Result = TypeVar("Result")


def in_flight(
    items: Iterable[Item], submit: Callable[[Item], Ticket], collect: Callable[[Ticket], Result], depth: int
) -> Iterator[Result]:
    """Yield ``collect(submit(item))`` in order, with up to ``depth`` items submitted and not collected."""
    waiting: deque[Ticket] = deque()
    try:
        for item in items:
            waiting.append(submit(item))
            if len(waiting) >= depth:
                yield collect(waiting.popleft())
        while waiting:
            yield collect(waiting.popleft())
    finally:
        # left early: the buffers are free again only when everything has ended
        while waiting:
            with suppress(Exception):  # what went wrong first is what the caller hears of
                collect(waiting.popleft())

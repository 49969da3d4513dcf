"""Kernel calls told, as they are made, to whoever listens in this thread: ``model.replay`` writes them down."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import Tensor


class Listener(Protocol):
    def memory(self, shape: tuple[int, ...]) -> Tensor | None:
        """Return a tensor for a result, float32, uninitialised; None: it may lie anywhere."""

    def packed(self, weights: tuple[Tensor, ...], seen: tuple[Tensor, ...]) -> None:
        """Hear that a form of ``weights`` is in use that was made when they were equal to ``seen``."""

    def launched(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        images: Sequence[Tensor],
        weights: Sequence[Tensor],
        constants: Sequence[Tensor],
    ) -> None:
        """Hear that ``function(*arguments)`` has run: its images, weights read in place, and what never changes."""

    def concatenated(self, images: Sequence[Tensor]) -> Tensor:
        """Return images (B, C_i, H, W) of one size as one, (B, sum of C_i, H, W)."""


_of_thread = threading.local()


def listener() -> Listener | None:
    """Return who listens to the calls of this thread, or None."""
    return getattr(_of_thread, "listener", None)


def tell(new: Listener | None) -> None:
    """Have the calls of this thread told to ``new`` from now on, or to nobody."""
    _of_thread.listener = new

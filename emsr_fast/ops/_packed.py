"""Weights in the layout that kernels read, remembered from call to call and never out of date."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from emsr_fast import _native, _recording


class _Entry(NamedTuple):
    seen: tuple[Tensor, ...]  # copies of the weights that were packed
    packed: Tensor


class PackedWeights:
    """Packed forms of weights, each kept as long as the first tensor it was made from.

    Every call compares the weights with a copy of what was packed, byte by byte (7 us for 64 to 64 channels): version
    counters miss writes through ``.data``, NumPy and other aliases. An outdated form is replaced, never written to,
    since another thread may be computing with it.
    """

    def __init__(self, pack: Callable[..., Tensor]) -> None:
        self._pack = pack
        self._entries = WeakTensorKeyDictionary()
        self._renew_lock()
        # another thread may hold it at the moment of a fork, and does not live on in the child
        os.register_at_fork(after_in_child=self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    def get(self, *weights: Tensor) -> Tensor:
        """Return ``pack(*weights)`` of the weights as they are now."""
        with self._lock:
            entry: _Entry | None = self._entries.get(weights[0])
        if entry is None or not unchanged(weights, entry.seen):
            seen = tuple(w.detach().clone(memory_format=torch.contiguous_format) for w in weights)
            entry = _Entry(seen, self._pack(*seen))
            with self._lock:
                self._entries[weights[0]] = entry
        if (listener := _recording.listener()) is not None:
            listener.packed(weights, entry.seen)
        return entry.packed


def unchanged(weights: tuple[Tensor, ...], seen: tuple[Tensor, ...]) -> bool:
    """Return whether ``weights`` are still what they were when their contiguous copies ``seen`` were made."""
    return all(_native.same_bytes(weight.contiguous(), copy) for weight, copy in zip(weights, seen, strict=True))

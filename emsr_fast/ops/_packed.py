"""Weights in the layout of the kernels, kept between calls and checked for changes."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from emsr_fast import _native


class _Entry(NamedTuple):
    first: weakref.ref[Tensor]  # the tensor that this is remembered for
    seen: tuple[Tensor, ...]  # copies of the weights that were packed, dense, with their strides where those are, too
    packed: Tensor


class PackedWeights:
    """Packed forms of weights, each kept as long as the first tensor it was made from.

    Every call compares the weights, byte by byte, with a copy of those that were packed (3 us for 64 to 64 channels).
    Version counters would miss writes through ``.data``, NumPy and other aliases. An outdated form is replaced, and
    never written to, because another thread may be computing with it.
    """

    def __init__(self, pack: Callable[..., Tensor]) -> None:
        self._pack = pack
        # by id; entries go in the middle of anything, in any thread: only single steps on this
        self._entries: dict[int, _Entry] = {}

    def get(self, *weights: Tensor) -> Tensor:
        """Return ``pack(*weights)`` of the weights as they are now."""
        first = weights[0]
        entry = self._entries.get(id(first))
        if entry is None or entry.first() is not first or not _unchanged(weights, entry.seen):
            entry = self._entries[id(first)] = self._entry(weights)
        return entry.packed

    def _entry(self, weights: tuple[Tensor, ...]) -> _Entry:
        seen = tuple(w.detach().clone() for w in weights)
        entries, key = self._entries, id(weights[0])
        gone = weakref.ref(weights[0], lambda _: entries.pop(key, None))
        return _Entry(gone, seen, self._pack(*seen))


def _unchanged(weights: Sequence[Tensor], seen: Sequence[Tensor]) -> bool:
    """Return whether ``weights`` are still what they were when their copies ``seen`` were made."""
    for weight, copy in zip(weights, seen, strict=True):
        if weight.stride() != copy.stride():
            # not dense, or laid out anew
            weight = torch.empty_like(copy).copy_(weight) if weight.shape == copy.shape else weight
        if not _native.same_bytes(weight, copy):
            return False
    return True

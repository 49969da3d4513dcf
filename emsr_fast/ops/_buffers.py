"""Memory for large results on a CPU, handed on from one to the next.

The C library gives every block above 32 MB back to the system when it is freed. A network that makes a hundred of
them a call (64 channels of 350 x 350 px and more) would spend 40 % of its time on having their pages cleared again.
"""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from emsr_fast import _native, _recording

_LEAST_BYTES = 24 << 20  # below, the C library keeps what is freed
_MOST_IDLE = 8  # as many as the network has alive at its peak
_SPARE = 16  # floats, to begin on a multiple of 64 bytes

# unused buffers, all of one size; they come back in the middle of anything, in any thread: only single steps on these
_idle: dict[int, deque[np.ndarray]] = {}


def empty_features(shape: tuple[int, ...]) -> Tensor | None:
    """Return an uninitialised float32 tensor on the CPU, or None where torch's own memory does as well.

    It begins on a multiple of 64 bytes. Its memory is handed on when the last tensor that shares it is gone. At most 8
    buffers wait, all of the size asked for last; the others go back to the system. While a pass through the network is
    recorded, the memory is the recording's.
    """
    if (listener := _recording.listener()) is not None:
        return listener.memory(shape)
    floats = math.prod(shape)
    if 4 * floats < _LEAST_BYTES:
        return None
    waiting = _idle.get(floats)
    if waiting is None:
        _idle.clear()
        waiting = _idle.setdefault(floats, deque(maxlen=_MOST_IDLE))
    try:
        buffer = waiting.pop()
    except IndexError:
        buffer = _aligned(floats)
    return _lent(buffer, shape, _give_back)


def _aligned(floats: int) -> np.ndarray:
    memory = np.empty(floats + _SPARE, np.float32)
    start = -memory.ctypes.data % 64 // 4
    return memory[start : start + floats]


def _lent(buffer: np.ndarray, shape: tuple[int, ...], give_back: Callable[[np.ndarray], None]) -> Tensor:
    # a view of its own for every tensor: torch holds it as long as the tensor's storage lives
    view = buffer[: math.prod(shape)]
    weakref.finalize(view, give_back, buffer).atexit = False
    return torch.from_numpy(view).view(shape)


def _give_back(buffer: np.ndarray) -> None:
    if (waiting := _idle.get(buffer.size)) is not None:
        waiting.append(buffer)


class Pool:
    """Buffers of ``floats`` float32 each, handed on like the others, but none is given up while the pool lives."""

    def __init__(self, floats: int) -> None:
        self.floats = floats
        self._buffers: dict[int, np.ndarray] = {}  # all of them, by where they begin
        self._idle: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self._buffers)

    def __contains__(self, t: Tensor) -> bool:
        return _native.memory(t) in self._buffers

    def empty(self, shape: tuple[int, ...]) -> Tensor | None:
        """Return an uninitialised tensor in one of the buffers, or None if it would not fit."""
        if math.prod(shape) > self.floats:
            return None
        buffer = self._idle.pop() if self._idle else _aligned(self.floats)
        self._buffers[buffer.ctypes.data] = buffer
        return _lent(buffer, shape, self._idle.append)

    def array(self, t: Tensor) -> np.ndarray:
        """Return what a contiguous tensor of the pool holds, for as long as the pool lives."""
        assert t.is_contiguous()
        assert t.storage_offset() == 0
        return self._buffers[_native.memory(t)][: t.numel()].reshape(t.shape)

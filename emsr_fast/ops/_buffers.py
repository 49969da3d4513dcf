"""Memory for large results on a CPU, handed on from one to the next.

The C library gives every block above 32 MB back to the system when it is freed. A network that makes a hundred of
them a call (64 channels of 350 x 350 px and more) would spend 40 % of its time on having their pages cleared again.
"""

from __future__ import annotations

import math
import weakref
from collections import deque

import numpy as np
import torch
from torch import Tensor

_LEAST_BYTES = 24 << 20  # below, the C library keeps what is freed
_MOST_IDLE = 8  # as many as the network has alive at its peak
_SPARE = 16  # floats, to begin on a multiple of 64 bytes

# unused buffers, all of one size; they come back in the middle of anything, in any thread: only single steps on these
_idle: dict[int, deque[np.ndarray]] = {}


def empty_features(shape: tuple[int, ...]) -> Tensor | None:
    """Return an uninitialised float32 tensor on the CPU, or None where torch's own memory does as well.

    It begins on a multiple of 64 bytes. Its memory is handed on when the last tensor that shares it is gone. At most 8
    buffers wait, all of the size asked for last; the others go back to the system.
    """
    floats = math.prod(shape) + _SPARE
    if 4 * floats < _LEAST_BYTES:
        return None
    waiting = _idle.get(floats)
    if waiting is None:
        _idle.clear()
        waiting = _idle.setdefault(floats, deque(maxlen=_MOST_IDLE))
    try:
        buffer = waiting.pop()
    except IndexError:
        buffer = np.empty(floats, np.float32)
    start = -buffer.ctypes.data % 64 // 4
    # a view of its own for every tensor: torch holds it as long as the tensor's storage lives
    view = buffer[start : start + floats - _SPARE]
    weakref.finalize(view, _give_back, buffer).atexit = False
    return torch.from_numpy(view).view(shape)


def _give_back(buffer: np.ndarray) -> None:
    if (waiting := _idle.get(buffer.size)) is not None:
        waiting.append(buffer)

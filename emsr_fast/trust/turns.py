"""The eight flips and quarter turns of a slice, and the way back."""

from __future__ import annotations

import numpy as np

TURNS = range(8)  # 0 leaves the image as it is


def turned(image: np.ndarray, turn: int) -> np.ndarray:
    """Return ``image``, (H, W), mirrored left to right from ``turn`` 4 on, then turned by ``turn % 4`` quarters."""
    return np.rot90(image[:, ::-1] if turn >= 4 else image, turn % 4)


def turned_back(image: np.ndarray, turn: int) -> np.ndarray:
    """Return the inverse of ``turned``; ``image`` may be enlarged."""
    upright = np.rot90(image, -turn % 4)
    return upright[:, ::-1] if turn >= 4 else upright

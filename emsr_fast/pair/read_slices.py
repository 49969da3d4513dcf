"""Slices for registration: float32, reduced by whole factors while they are read, a few rows at a time."""

from __future__ import annotations

import numpy as np

from emsr_fast.io.intensity import check_finite
from emsr_fast.io.volume import SourceVolume

_STRIP_PIXELS = 2**24  # decoded at a time


def read_reduced(source: SourceVolume, z: int, rows: range, cols: range, factor: int = 1) -> np.ndarray:
    """Return part of slice ``z``, float32, each pixel the mean of ``factor`` x ``factor``; a remainder is left out.

    Args:
        rows: of the slice, pixels, inside it; (the same for) cols.

    Raises:
        VolumeError: the slice cannot be decoded, or has NaN pixels here.
    """
    height, width = len(rows) // factor, len(cols) // factor
    reduced = np.empty((height, width), dtype=np.float32)
    step = max(1, _STRIP_PIXELS // (len(cols) * factor))
    columns = slice(cols.start, cols.start + width * factor)
    for first in range(0, height, step):
        last = min(height, first + step)
        strip = source.read(z, slice(rows.start + first * factor, rows.start + last * factor), columns)
        check_finite(strip, z, source)
        squares = strip.reshape(last - first, factor, width, factor)
        reduced[first:last] = squares.mean(axis=(1, 3), dtype=np.float32) if factor > 1 else strip
    return reduced


def read_window(
    source: SourceVolume, z: int, low: np.ndarray, high: np.ndarray, margin: int, factor: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return what slice ``z`` has between ``low`` and ``high`` plus ``margin``, and the px its first pixel is at.

    Args:
        low: (2,) smallest row and column wanted, may be outside the slice; high: the largest.
        margin: LR px on every side.
        factor: as in ``read_reduced``.
    """
    _, height, width = source.shape
    spans = []
    for a, b, side in zip(low, high, (height, width), strict=True):
        # at least a few pixels, wherever a wrong pose points
        start = int(np.clip(np.floor(a) - margin, 0, max(0, side - 8 * factor)))
        stop = int(np.clip(np.ceil(b) + margin + 1, min(side, start + 8 * factor), side))
        spans.append(range(start, stop))
    rows, cols = spans
    return read_reduced(source, z, rows, cols, factor), np.array([rows.start, cols.start], dtype=np.float64)

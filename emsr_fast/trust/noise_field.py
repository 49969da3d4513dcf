"""Noise as a function of the position, so that a pixel gets the same noise in every tile and process."""

from __future__ import annotations

import itertools

import numpy as np

_CELL = 64  # px: side of the squares that have a random stream of their own
_SEED = 0x7275_5354


def noise_at(z: int, rows: slice, cols: slice, draw: int) -> np.ndarray:
    """Return white Gaussian noise of mean 0 and variance 1, (rows, cols) float32, of a place in the volume.

    Args:
        z, rows, cols: voxels of the input, counted from its own corner.
        draw: different numbers give independent noise.
    """
    field = np.empty((rows.stop - rows.start, cols.stop - cols.start), np.float32)
    for down, across in itertools.product(_cells(rows), _cells(cols)):
        stream = np.random.default_rng([_SEED, draw, z, down, across])
        cell = stream.standard_normal((_CELL, _CELL), dtype=np.float32)
        (from_rows, to_rows), (from_cols, to_cols) = _overlap(down, rows), _overlap(across, cols)
        field[to_rows, to_cols] = cell[from_rows, from_cols]
    return field


def _cells(span: slice) -> range:
    return range(span.start // _CELL, -(-span.stop // _CELL))


def _overlap(cell: int, span: slice) -> tuple[slice, slice]:
    """Return where a cell and ``span`` overlap, counted from the start of each."""
    start, stop = max(cell * _CELL, span.start), min((cell + 1) * _CELL, span.stop)
    return slice(start - cell * _CELL, stop - cell * _CELL), slice(start - span.start, stop - span.start)

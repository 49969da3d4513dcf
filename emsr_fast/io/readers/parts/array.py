"""A stored array as a stack, for HDF5, Zarr, MRC and MATLAB files."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import numpy as np

from emsr_fast.errors import VolumeError
from emsr_fast.io.axes import Layout
from emsr_fast.io.readers.parts.files import AdvisedError, DamagedError
from emsr_fast.io.volume import SourceVolume, VolumeInfo, as_pixels

# neighbouring tiles and slices share chunks: decoded ones are kept up to this many bytes
_KEPT_BYTES = 2**28
# but no more than those of so many layers of chunks: the one that is read, and the next where its reading has begun
_KEPT_LAYERS = 2
# small chunks are read several at a time, which their libraries do at once
_SMALLEST_READ = 2**20
# a header may claim any size; more than this at a time is no chunk that a writer makes
LARGEST_CHUNK = 2**30


class ArraySource(SourceVolume):
    """An array read chunk by chunk; decoded chunks are kept as long as they are likely to be needed again."""

    def __init__(
        self,
        array: Any,
        layout: Layout,
        info: VolumeInfo,
        *,
        chunked: bool = True,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        """Make ``array`` a source.

        Args:
            array: anything that gives a numpy array for a tuple of slices and indices.
            layout: its axes.
            info: what is known about it; the chunks are those of ``array``.
            chunked: False if any part can be read alone, as from an uncompressed file.
            close: called by ``close``.
        """
        self.info = info
        self._array, self._layout, self._close = array, layout, close
        self._cell = _cell(info) if chunked else None
        self._kept: OrderedDict[tuple[int, int, int], np.ndarray] = OrderedDict()
        depth = self._cell[0] if self._cell else 1
        self._useful = min(_KEPT_BYTES, _KEPT_LAYERS * depth * info.shape[1] * info.shape[2] * info.dtype.itemsize)
        self._kept_bytes, self._kept_most = 0, self._useful
        self._lock = threading.Lock()

    def read(self, z: int, rows: slice, cols: slice) -> np.ndarray:
        """Return pixels of slice ``z``, (rows, cols)."""
        _, height, width = self.shape
        (top, bottom, _), (left, right, _) = rows.indices(height), cols.indices(width)
        if self._cell is None:
            return self._decode(z, slice(z, z + 1), slice(top, bottom), slice(left, right))[0]
        depth, high, wide = self._cell
        image = np.empty((max(bottom - top, 0), max(right - left, 0)), self.dtype)
        for row in range(top - top % high, bottom, high):
            for col in range(left - left % wide, right, wide):
                cell = self._kept_cell(z, (z // depth, row // high, col // wide))[z % depth]
                y, x = max(top - row, 0), max(left - col, 0)
                part = cell[y : bottom - row, x : right - col]
                y, x = row + y - top, col + x - left
                image[y : y + part.shape[0], x : x + part.shape[1]] = part
        return image

    def limit_memory(self, most: int) -> int:
        """Hold ``most`` bytes of decoded chunks, or as little as possible; return how many it may hold at its peak."""
        if self._cell is None:
            return 0
        cell = math.prod(self._cell) * self.dtype.itemsize
        # beside what is kept there is one as it is stored, one as it is decoded, and one put together
        self._kept_most = min(max(most - 3 * cell, cell), max(self._useful, cell))
        return self._kept_most + 3 * cell

    def close(self) -> None:
        """Close the file and forget what was decoded."""
        self._kept.clear()
        self._close()

    def _kept_cell(self, z: int, index: tuple[int, int, int]) -> np.ndarray:
        with self._lock:
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index]
        assert self._cell is not None
        spans = [
            slice(number * side, min((number + 1) * side, length))
            for number, side, length in zip(index, self._cell, self.shape, strict=True)
        ]
        cell = self._decode(z, *spans)
        with self._lock:
            self._kept[index] = cell
            self._kept_bytes = sum(kept.nbytes for kept in self._kept.values())
            while self._kept_bytes > self._kept_most and len(self._kept) > 1:
                self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
        return cell

    def _decode(self, z: int, *spans: slice) -> np.ndarray:
        try:
            block = self._layout.read(self._array, *spans)
        except (VolumeError, MemoryError):
            raise
        except Exception as error:  # each library and codec has its own
            reason = f"{error}" or type(error).__name__
            advice = "" if isinstance(error, AdvisedError) else "; copy or export it again"
            raise DamagedError(f"slice {z} of {self.info.path} cannot be decoded: {reason}{advice}") from error
        return np.ascontiguousarray(as_pixels(block), dtype=self.dtype)


def check_chunk(chunks: tuple[int, ...], dtype: np.dtype, path: PurePath) -> None:
    """Raise VolumeError if one chunk would decode to more than a gigabyte, or to nothing."""
    size = dtype.itemsize
    for side in chunks:
        size *= int(side)
    stated = f"{path} says that its chunks are {' x '.join(map(str, chunks))} of {dtype.name}"
    if min(chunks, default=1) < 1:
        raise VolumeError(f"{stated}, which hold nothing; check how it was written")
    if size > LARGEST_CHUNK:
        raise VolumeError(
            f"{stated} ({size:,} bytes each); up to {LARGEST_CHUNK:,} can be read: write it again with smaller chunks"
        )


def _cell(info: VolumeInfo) -> tuple[int, int, int]:
    """Return how much is decoded at a time: whole chunks, as many in y and x as make a megabyte."""
    depth, high, wide = (min(chunk, side) for chunk, side in zip(info.chunks, info.shape, strict=True))
    _, height, width = info.shape
    while depth * high * wide * info.dtype.itemsize < _SMALLEST_READ and (high < height or wide < width):
        if wide < width and (wide <= high or high >= height):
            wide *= 2
        else:
            high *= 2
    return depth, high, wide

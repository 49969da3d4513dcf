"""Pixels that lie uncompressed in a file, read where they are asked for."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from emsr_fast.io.readers.parts.files import DamagedError

# bytes: to read the whole of such a row costs less than to read a part of it by itself
_SHORT_ROW = 1024


class FileArray:
    """An array of two or more axes in a file, slowest axis first.

    Reads, and does not map: what was read once would count as memory in use, and a file that shrinks would end the
    process.
    """

    def __init__(
        self,
        path: Path,
        planes: Sequence[int],
        dtype: np.dtype,
        shape: tuple[int, ...],
        *,
        bottom_up: bool = False,
        file: IO[bytes] | None = None,
    ) -> None:
        """Open ``path``.

        Args:
            path: the file.
            planes: where each plane of the last two axes begins, bytes from the file's begin.
            dtype: of a pixel, byte order included.
            shape: sides, two or more.
            bottom_up: whether the file holds the last row of a plane first.
            file: what to read instead, the unpacked content of ``path``; ``close`` closes it.

        Raises:
            DamagedError: the file is shorter than that.
            OSError: it cannot be opened.
        """
        self.shape, self.dtype = shape, dtype
        self._path, self._planes, self._bottom_up = path, planes, bottom_up
        self._file: IO[bytes] = file or path.open("rb", buffering=0)
        # of a range, whose length a header claims, not every number is looked at
        last = max(planes[0], planes[-1]) if isinstance(planes, range) else max(planes)
        size, needed = os.fstat(self._file.fileno()).st_size, last + prod(shape[-2:]) * dtype.itemsize
        if size < needed:
            self.close()
            raise DamagedError(f"{path} is truncated: its pixels need {needed} bytes, it has {size}; copy it again")

    def __getitem__(self, where: tuple[slice | int, ...]) -> np.ndarray:
        """Return the part ``where``, a slice of step 1 or a number for each axis."""
        spans = [
            range(place, place + 1) if isinstance(place, int) else range(*place.indices(side))
            for place, side in zip(where, self.shape, strict=True)
        ]
        *outer, rows, cols = spans
        if self._bottom_up:
            height = self.shape[-2]
            rows = range(height - rows.stop, height - rows.start)
        part = np.empty((*map(len, spans[:-2]), len(rows), len(cols)), self.dtype)
        planes = part.reshape(-1, len(rows), len(cols))
        for place, plane in zip(itertools.product(*outer), planes, strict=True):
            number = 0
            for index, side in zip(place, self.shape[:-2], strict=True):
                number = number * side + index
            self._read_rows(self._planes[number], rows, cols, plane)
        if self._bottom_up:
            part = part[..., ::-1, :]
        return part[tuple(0 if isinstance(place, int) else slice(None) for place in where)]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read_rows(self, begin: int, rows: range, cols: range, into: np.ndarray) -> None:
        """Read a part of the plane at ``begin``: whole and short rows in one read, parts of long rows one by one."""
        width = self.shape[-1]
        if len(cols) == width:
            self._read(begin, rows.start * width, into)
            return
        if width * self.dtype.itemsize <= _SHORT_ROW:
            whole = np.empty((len(rows), width), self.dtype)
            self._read(begin, rows.start * width, whole)
            into[:] = whole[:, cols.start : cols.stop]
            return
        for row, pixels in zip(rows, into, strict=True):
            self._read(begin, row * width + cols.start, pixels)

    def _read(self, begin: int, pixel: int, into: np.ndarray) -> None:
        at, target = begin + pixel * self.dtype.itemsize, memoryview(into.reshape(-1).view(np.uint8).data)
        while len(target):
            count = os.preadv(self._file.fileno(), [target], at)
            if not count:
                raise DamagedError(
                    f"{self._path} became shorter while it was read; try again when it no longer changes"
                )
            at, target = at + count, target[count:]

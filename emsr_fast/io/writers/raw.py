"""Shared by TIFF and MRC output: a file of the final size is made first, then blocks are written at their offsets."""

from __future__ import annotations

import os
from abc import abstractmethod
from pathlib import Path

import numpy as np

from emsr_fast.io.destination import check_space, staging, system_errors
from emsr_fast.io.volume import TargetSpec, TargetVolume, check_block


class RawTarget(TargetVolume):
    """A file with one uncompressed (Z, Y, X) array in it."""

    def __init__(self, path: Path, spec: TargetSpec, stored: np.dtype, *, overwrite: bool) -> None:
        """Make the file under a temporary name beside ``path``.

        Args:
            path: the final path.
            spec: what is written.
            stored: dtype of the pixels in the file.
            overwrite: whether a file of the same format may be replaced.
        """
        self.spec, self._stored = spec, stored
        self._staging = staging(path, overwrite=overwrite)
        self._descriptor = -1
        try:
            check_space(self._staging.final, self._file_bytes())
            with system_errors(self._staging.final):
                self._first_pixel = self._lay_out(self._staging.path)
                self._descriptor = os.open(self._staging.path, os.O_RDWR)
        except BaseException:
            self.abort()
            raise

    @abstractmethod
    def _file_bytes(self) -> int:
        """Return how large the file becomes, at most."""

    @abstractmethod
    def _lay_out(self, path: Path) -> int:
        """Write everything but the pixels; return the first pixel's offset."""

    def _finish(self, descriptor: int) -> None:
        """Write the metadata that are known only at the end."""

    def write(self, z: int, rows: slice, cols: slice, block: np.ndarray) -> None:
        """Write ``block``, (rows, cols), into slice ``z``."""
        check_block(self.spec, z, rows, cols, block)
        _, height, width = self.spec.shape
        lines = np.ascontiguousarray(block, dtype=self._stored)
        if block.shape[1] == width:
            lines = lines.reshape(1, -1)  # whole rows follow each other in the file too
        offset = self._first_pixel + ((z * height + rows.start) * width + cols.start) * lines.itemsize
        with system_errors(self._staging.final):
            for number, line in enumerate(lines):
                write_all(self._descriptor, memoryview(line).cast("B"), offset + number * width * lines.itemsize)

    def commit(self) -> None:
        """Flush the file to the disk and give it its final name."""
        with system_errors(self._staging.final):
            self._finish(self._descriptor)
            # a full quota on a network disk may show only here
            os.fsync(self._descriptor)
            self._close()
            self._staging.publish()

    def abort(self) -> None:
        """Remove the unfinished file."""
        self._close()
        self._staging.discard()

    def _close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


def write_all(descriptor: int, data: memoryview, offset: int) -> None:
    """Write all of ``data``: a nearly full disk takes a part of it first, and fails on the next write."""
    while data:
        count = os.pwrite(descriptor, data, offset)
        data, offset = data[count:], offset + count

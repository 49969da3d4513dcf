"""Writes HDF5: one chunked dataset with its voxel size in ``element_size_um``."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from emsr_fast.errors import VolumeError
from emsr_fast.io.destination import staging, volume_error
from emsr_fast.io.volume import TargetSpec, TargetVolume, check_block
from emsr_fast.io.voxels import UNKNOWN
from emsr_fast.io.writers.raw import write_all
from emsr_fast.shield import shielded_from_signals

# as in the paper's data, and what most tools look for first
DATASET = "raw"
_LARGEST_CHUNK = 1024


def create_target(path: Path, spec: TargetSpec, *, overwrite: bool) -> TargetVolume:
    """Return a new HDF5 file under a temporary name beside ``path``."""
    return Hdf5Target(path, spec, overwrite=overwrite)


class Hdf5Target(TargetVolume):
    """A file with the dataset /raw, (Z, Y, X), deflated in chunks of one slice."""

    def __init__(self, path: Path, spec: TargetSpec, *, overwrite: bool) -> None:
        self.spec = spec
        self._file: h5py.File | None = None
        self._disk: _Disk | None = None
        self._staging = staging(path, overwrite=overwrite)
        try:
            with self._errors():
                self._disk = _Disk(self._staging.path)
                self._file = h5py.File(self._disk, "w", libver=("earliest", "v110"))
                self._data = self._file.create_dataset(
                    DATASET,
                    shape=spec.shape,
                    dtype=spec.dtype,
                    chunks=_chunks(spec),
                    compression="gzip",
                    compression_opts=1,
                    shuffle=spec.dtype.itemsize > 1,
                )
                for axis, name in enumerate("zyx"):
                    self._data.dims[axis].label = name
                if spec.voxel_size_nm != UNKNOWN:
                    # the attribute has no word for one unknown side but this
                    sizes = [np.nan if size is None else size / 1e3 for size in spec.voxel_size_nm]
                    self._data.attrs["element_size_um"] = np.array(sizes, np.float64)
                self._data.attrs["emsr_fast"] = json.dumps(spec.provenance, default=str)
        except BaseException:
            self.abort()
            raise

    def write(self, z: int, rows: slice, cols: slice, block: np.ndarray) -> None:
        """Write ``block``, (rows, cols), into slice ``z``."""
        check_block(self.spec, z, rows, cols, block)
        with self._errors():
            self._data[z, rows, cols] = block

    def commit(self) -> None:
        """Flush the file to the disk and give it its final name."""
        with self._errors():
            self._close()
        with self._errors():  # of a disk that failed, none comes so far
            self._staging.publish()

    def abort(self) -> None:
        """Remove the unfinished file."""
        with suppress(VolumeError), self._errors():
            if self._disk is not None:
                self._disk.forget()
            self._close()
        self._staging.discard()

    def _close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            file.close()
        if self._disk is not None and self._disk.error is None:
            disk, self._disk = self._disk, None
            disk.finish()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn errors of the disk and of HDF5 into VolumeError."""
        try:
            with shielded_from_signals():
                yield
                if self._disk is not None and self._disk.error is not None:
                    raise self._disk.error
        except OSError as error:
            raise volume_error(error, self._staging.final) from error
        except RuntimeError as error:
            raise VolumeError(f"output {self._staging.final} cannot be written: {error}; check the disk") from error


class _Disk(io.RawIOBase):
    """The file that HDF5 writes to. On a full disk HDF5 cannot close a file, and crashes the process.

    So after the first failure, kept in ``error``, nothing more is written, and HDF5 is told that all went well.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        self._at = 0
        self._forgotten = False
        self.error: OSError | None = None

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: os.fstat(self._descriptor).st_size}[whence]
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        content = os.pread(self._descriptor, len(buffer), self._at)
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if not self._forgotten:
            try:
                write_all(self._descriptor, view, self._at)
            except OSError as error:
                self._fail(error)
        self._at += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        size = self._at if size is None else size
        if not self._forgotten:
            try:
                os.ftruncate(self._descriptor, size)
            except OSError as error:
                self._fail(error)
        return size

    def forget(self) -> None:
        """Write nothing more: the file is to be removed."""
        self._forgotten = True

    def finish(self) -> None:
        """Flush the file to the disk and close it; raises OSError if that fails."""
        descriptor, self._descriptor = self._descriptor, -1
        try:
            if not self._forgotten:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _fail(self, error: OSError) -> None:
        self.error, self._forgotten = self.error or error, True


def _chunks(spec: TargetSpec) -> tuple[int, int, int]:
    """Return chunk sides that divide the blocks written, so that each chunk is written once."""
    side = max(size for size in range(1, min(spec.block, _LARGEST_CHUNK) + 1) if spec.block % size == 0)
    _, height, width = spec.shape
    return (1, min(side, height), min(side, width))

"""HDF5 out: one chunked dataset with its voxel size in ``element_size_um``."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import h5py
import numpy as np

from emsr_fast.errors import VolumeError
from emsr_fast.volume.formats.base import TargetSpec, TargetVolume, check_block
from emsr_fast.volume.formats.destination import Staging, shielded_from_signals, volume_error
from emsr_fast.volume.voxels import UNKNOWN

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
        self._staging = Staging(path, overwrite=overwrite)
        try:
            with self._errors():
                self._file = h5py.File(self._staging.path, "w", libver=("earliest", "v110"))
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
            if self._file is not None:
                self._file.flush()
                self._file.close()
                self._file = None
            descriptor = os.open(self._staging.path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        self._staging.publish()

    def abort(self) -> None:
        """Remove the unfinished file."""
        if self._file is not None:
            # on a full disk closing fails as writing did
            with suppress(Exception), shielded_from_signals():
                self._file.close()
            self._file = None
        self._staging.discard()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what HDF5 raises while writing into VolumeError; it tells the system's errors as text."""
        try:
            with shielded_from_signals():
                yield
        except (OSError, RuntimeError, ValueError) as error:
            number = re.search(r"errno = (\d+)", str(error))
            if number or (isinstance(error, OSError) and error.errno is not None):
                code = int(number[1]) if number else error.errno  # type: ignore[union-attr]
                system = OSError(code, os.strerror(code or 0))
                raise volume_error(system, self._staging.final) from error
            raise VolumeError(f"output {self._staging.final} cannot be written: {error}; check the disk") from error


def _chunks(spec: TargetSpec) -> tuple[int, int, int]:
    """Return chunk sides that divide the blocks written, so that each chunk is written once."""
    side = max(size for size in range(1, min(spec.block, _LARGEST_CHUNK) + 1) if spec.block % size == 0)
    _, height, width = spec.shape
    return (1, min(side, height), min(side, width))

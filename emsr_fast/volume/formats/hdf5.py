"""HDF5 in: one dataset of a file as a grey stack, read block by block; "file.h5:/path" names the dataset."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from emsr_fast.errors import VolumeError
from emsr_fast.volume.formats import within
from emsr_fast.volume.formats.base import SourceVolume, VolumeInfo, check_pixels
from emsr_fast.volume.voxels import UNKNOWN, VoxelSize, nanometres

_SIZES = {"element_size_um": 1e3, "element_size_nm": 1.0}  # attributes, (z, y, x), with nm per unit


def open_source(path: Path) -> SourceVolume:
    """Return the dataset at ``path`` ("file.h5:/path", or a file with a single image in it), opened for reading."""
    return Hdf5Source(path)


class Hdf5Source(SourceVolume):
    """A two- or three-dimensional dataset, (Y, X) or (Z, Y, X)."""

    def __init__(self, path: Path) -> None:
        self._path, (file, key) = path, within(path)
        try:
            self._file = h5py.File(file, "r")
        except OSError as error:
            raise VolumeError(f"{file} cannot be read as HDF5: {error}; copy or export it again") from error
        try:
            self._data = _dataset(self._file, key, file)
            self._describe(path)
        except BaseException:
            self._file.close()
            raise

    def _describe(self, path: Path) -> None:
        data = self._data
        shape = (1, *data.shape) if data.ndim == 2 else data.shape
        dtype = np.dtype(data.dtype).newbyteorder("=")
        notes = check_pixels(shape, dtype, path)
        voxel_size_nm, stated = _voxel_size(data)
        chunks = data.chunks or (1, *shape[1:])
        self.info = VolumeInfo(
            path=path,
            format=f"HDF5, dataset {data.name}",
            shape=shape,
            dtype=dtype,
            axes="YX" if data.ndim == 2 else "ZYX",
            chunks=(1, *chunks) if len(chunks) == 2 else chunks,
            voxel_size_nm=voxel_size_nm,
            voxel_size_from=stated,
            notes=notes,
        )

    def read(self, z: int, rows: slice, cols: slice) -> np.ndarray:
        """Return pixels of slice ``z``, (rows, cols)."""
        try:
            pixels = self._data[rows, cols] if self._data.ndim == 2 else self._data[z, rows, cols]
        except (OSError, RuntimeError, ValueError) as error:
            raise VolumeError(f"slice {z} of {self._path} cannot be read: {error}; copy the file again") from error
        return np.asarray(pixels, dtype=self.info.dtype)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _dataset(file: h5py.File, key: str | None, path: Path) -> h5py.Dataset:
    candidates = _images(file)
    listed = ", ".join(f"{path}:/{name}" for name in candidates[:8]) or "none with two or three axes"
    if key is None:
        if len(candidates) != 1:
            raise VolumeError(f"{path} has {len(candidates)} images; name one: {listed}")
        key = candidates[0]
    # links of other kinds lead out of the file
    if key not in candidates:
        raise VolumeError(f"{path} has no image {key!r} of its own; there are: {listed}")
    return file[key]


def _images(group: h5py.Group, prefix: str = "") -> list[str]:
    """Return the names of all datasets in the file itself that can be a grey image or stack."""
    found: list[str] = []
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            continue
        item = group[name]
        if isinstance(item, h5py.Group):
            found += _images(item, f"{prefix}{name}/")
        elif isinstance(item, h5py.Dataset) and item.ndim in (2, 3) and not item.external and not item.is_virtual:
            found.append(f"{prefix}{name}")
    return found


def _voxel_size(data: h5py.Dataset) -> tuple[VoxelSize, str]:
    for name, factor in _SIZES.items():
        sizes = np.ravel(data.attrs.get(name, ()))
        if len(sizes) == 3 and np.issubdtype(sizes.dtype, np.number):
            z, y, x = (nanometres(float(size) * factor, "nm") for size in sizes)
            return (z, y, x), f"attribute {name}"
    return UNKNOWN, "not stated in the file"

"""A volume whose pixels lie in one piece, from a byte of a file on: raw binary, NIfTI, NRRD."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite, prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from emsr_fast.errors import VolumeError
from emsr_fast.io.axes import Asked, layout_of
from emsr_fast.io.readers.parts.array import ArraySource
from emsr_fast.io.readers.parts.file_array import FileArray
from emsr_fast.io.volume import SourceVolume, VolumeInfo, check_pixels, pixel_dtype
from emsr_fast.io.voxels import UNKNOWN


@dataclass(frozen=True)
class Flat:
    """Where the pixels lie, and what a file states of them."""

    format: str
    dtype: np.dtype  # byte order included
    shape: tuple[int, ...]  # slowest axis first
    axes: str  # a letter for each of them
    offset: int  # bytes before the first pixel
    sizes_nm: tuple[float | None, ...]  # of a voxel along each axis
    sizes_from: str  # where they are stated
    notes: tuple[str, ...] = ()
    line: tuple[float, float] = (1.0, 0.0)  # a grey value is the stored one times the first, plus the second
    key: str | None = None
    instrument: str | None = None

    @property
    def end(self) -> int:
        """The byte behind the last pixel."""
        return self.offset + prod(self.shape) * self.dtype.itemsize


def flat_source(
    path: Path, flat: Flat, asked: Asked, unpacked: Callable[[int], IO[bytes]] | None = None
) -> SourceVolume:
    """Return the pixels as a source.

    Args:
        path: the file that holds them.
        unpacked: for a compressed file, returns its content up to that byte, unpacked; the source closes it.

    Raises:
        UsageError: ``asked`` does not fit.
        VolumeError: it is no grey stack, or the file is shorter than it should be.
    """
    layout, words = layout_of(flat.shape, path, asked=asked, stated=flat.axes)
    notes = list(check_pixels(layout.stack, flat.dtype, path))
    factor, added = flat.line
    if not isfinite(factor) or not isfinite(added):
        raise VolumeError(f"{path} scales its grey values by {factor} and adds {added}; export it again")
    dtype = pixel_dtype(flat.dtype)
    scaled = (factor, added) != (1.0, 0.0)
    if scaled:
        dtype = np.dtype(np.float32)
        notes = [f"grey values are the stored {flat.dtype.name} times {factor:g} plus {added:g}: read as float32"]
    plane = prod(flat.shape[-2:]) * flat.dtype.itemsize
    file = None if unpacked is None else unpacked(flat.end)
    array = FileArray(path, range(flat.offset, flat.end, plane), flat.dtype, flat.shape, file=file)
    voxel_size_nm = layout.in_order(flat.sizes_nm, None)
    info = VolumeInfo(
        path=path,
        format=flat.format,
        shape=layout.stack,
        dtype=dtype,
        axes=words,
        chunks=(1, *layout.stack[1:]),
        voxel_size_nm=voxel_size_nm,
        voxel_size_from=flat.sizes_from if voxel_size_nm != UNKNOWN else "not stated in the file",
        notes=(*notes, *flat.notes),
        key=flat.key,
        instrument=flat.instrument,
    )
    source = _Scaled(array, factor, added) if scaled else array
    return ArraySource(source, layout, info, chunked=False, close=array.close)


class _Scaled:
    """An array whose values are multiplied and added to where they are read, as float32."""

    def __init__(self, array: Any, factor: float, added: float) -> None:
        self._array, self._factor, self._added = array, factor, added

    def __getitem__(self, where: tuple[slice | int, ...]) -> np.ndarray:
        values: np.ndarray = self._array[where].astype(np.float64)
        return (values * self._factor + self._added).astype(np.float32)

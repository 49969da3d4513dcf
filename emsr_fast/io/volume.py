"""The interface of all volume formats: a source that is read lazily, a target that appears when complete."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from emsr_fast.errors import VolumeError
from emsr_fast.io.voxels import UNKNOWN, VoxelSize, described, meant, multiplied
from emsr_fast.wording import shortened

# what is kept as it is; other floats become float32, everything else is refused
KEPT_DTYPES = ("uint8", "int8", "uint16", "int16", "float32")

# a petabyte has sides of a few hundred thousand; beyond this a header is damaged
_LONGEST_SIDE = 2**31 - 1


@dataclass(frozen=True)
class VolumeInfo:
    """What is known about a volume; ``emsr-fast inspect`` prints all of it."""

    path: PurePath
    format: str  # "TIFF", "OME-Zarr 0.5"
    shape: tuple[int, int, int]  # Z, Y, X
    dtype: np.dtype
    axes: str  # as the file names them, and what was made of them
    chunks: tuple[int, int, int]  # what one access decodes, Z, Y, X
    voxel_size_nm: VoxelSize = UNKNOWN
    voxel_size_from: str = "not stated in the file"
    notes: tuple[str, ...] = ()
    key: str | None = None  # which of the file's images it is; None where a file has one
    position_nm: VoxelSize = UNKNOWN  # of the first voxel's centre, where OME-TIFF or MRC states it
    # chunks that are not stored and read as the fill value: how many, of how many; empty where there are none
    absent: Mapping[str, int] = field(default_factory=dict)
    damaged: Mapping[int, str] = field(default_factory=dict)  # slices known to be unreadable, and why
    instrument: str | None = None  # that made the volume, where its files say so
    # where a target of the same format finds what only that format holds, such as an extended header
    carried: Mapping[str, str] = field(default_factory=dict)


def instrument_name(text: str) -> str:
    """Return what a file calls its instrument, in one line of at most 80 characters; it may be empty."""
    return shortened(" ".join(text.split()))


def info_as_json(info: VolumeInfo) -> dict[str, Any]:
    """Return ``info`` as JSON values."""
    values = {name: getattr(info, name) for name in info.__dataclass_fields__ if name != "carried"}
    return values | {"path": str(info.path), "dtype": info.dtype.name}


def described_info(info: VolumeInfo) -> list[str]:
    """Return ``info`` in words, one line for each thing."""
    return [
        f"path    {info.path}",
        f"format  {info.format}",
        *([f"made by {info.instrument}"] if info.instrument else []),
        *([f"key     {info.key or '/'}"] if info.key is not None else []),
        f"shape   {' x '.join(map(str, info.shape))} (Z, Y, X)",
        f"dtype   {info.dtype.name}",
        f"axes    {info.axes}",
        f"chunks  {' x '.join(map(str, info.chunks))}",
        f"voxel   {described(info.voxel_size_nm)}, {info.voxel_size_from}",
        *([f"place   {_described_position(info.position_nm)}"] if info.position_nm != UNKNOWN else []),
        *(f"note    {note}" for note in info.notes),
    ]


def _described_position(position_nm: VoxelSize) -> str:
    sides = ("unknown" if side is None else f"{side:.10g}" for side in position_nm)
    return f"{', '.join(sides)} nm (z, y, x), the first voxel's centre"


class SourceVolume(Protocol):
    """A volume to read from; a context manager that closes its files."""

    info: VolumeInfo

    def read(self, z: int, rows: slice, cols: slice) -> np.ndarray:
        """Return pixels of slice ``z``, (rows, cols) in the file's dtype, native byte order.

        Raises:
            VolumeError: the slice cannot be decoded.
        """
        ...

    def close(self) -> None:
        """Close the files; reading afterwards is an error."""
        ...

    def limit_memory(self, most: int) -> int:
        """Hold ``most`` bytes of decoded pixels, or as little as possible; return how many it may hold at its peak."""
        return 0  # where pixels are read from their place in the file

    @property
    def shape(self) -> tuple[int, int, int]:
        """(Z, Y, X)."""
        return self.info.shape

    @property
    def dtype(self) -> np.dtype:
        """The pixels' dtype as stored."""
        return self.info.dtype

    def __enter__(self) -> SourceVolume:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True)
class TargetSpec:
    """The shape, dtype and metadata of a target, known before the first pixel."""

    shape: tuple[int, int, int]  # Z, scale * Y, scale * X
    dtype: np.dtype
    scale: int  # HR pixels per LR pixel, y and x
    voxel_size_nm: VoxelSize = UNKNOWN  # of the target
    block: int = 768  # side in HR pixels of the largest block written; blocks start on its multiples
    first_slice: int = 0  # index in the input of the target's slice 0
    first_pixel: tuple[float, float] = (0, 0)  # row and column in the input of the target's first LR pixel, LR px
    provenance: dict[str, Any] = field(default_factory=dict)  # software, model, settings; JSON values
    carried: Mapping[str, str] = field(default_factory=dict)  # the source's, see ``VolumeInfo``

    @property
    def first_centre(self) -> tuple[float, float, float]:
        """The first voxel's centre, (z, y, x), relative to the centre of the input's first voxel.

        In nm; along an axis of unknown size in voxels of the input.
        """
        # pixel centres are at whole coordinates, so the first HR pixel lies before the first LR pixel's centre
        before = (1 - self.scale) / (2 * self.scale)
        firsts = (self.first_slice, *(first + before for first in self.first_pixel))
        sides = multiplied(self.voxel_size_nm, self.scale)
        z, y, x = (meant(first * (side or 1.0)) for first, side in zip(firsts, sides, strict=True))
        return (z, y, x)


class TargetVolume(Protocol):
    """A volume being written under a hidden temporary name; it takes its final name at ``commit``.

    A context manager: leaving it without a commit removes everything written.
    """

    spec: TargetSpec

    def write(self, z: int, rows: slice, cols: slice, block: np.ndarray) -> None:
        """Write ``block``, (rows, cols) in the target's dtype, into slice ``z``; blocks come in any order.

        Raises:
            VolumeError: the disk is full, or writing fails otherwise.
        """
        ...

    def commit(self) -> None:
        """Finish the volume and give it its final name, in one step."""
        ...

    def abort(self) -> None:
        """Remove everything written; harmless after ``commit`` and when called twice."""
        ...

    def __enter__(self) -> TargetVolume:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()


def check_pixels(shape: tuple[int, ...], dtype: np.dtype, path: PurePath) -> tuple[str, ...]:
    """Return notes on how pixels of ``dtype`` are handled.

    Raises:
        VolumeError: no pixels, or a dtype that is not an image's grey values.
    """
    if min(shape) < 1:
        raise VolumeError(f"{path} has no pixels: its shape is {tuple(shape)}; check how it was written")
    if max(shape) > _LONGEST_SIDE:
        raise VolumeError(f"{path} claims the shape {tuple(shape)}, which no volume has; check how it was written")
    if dtype.name in KEPT_DTYPES:
        return ()
    if dtype.name in ("float16", "float64"):
        return (f"{dtype.name} is processed and written as float32",)
    if dtype.kind == "b":
        return ("bool is read as uint8: False as 0, True as 255; the output is uint8",)
    if dtype.kind in "iu" and dtype.itemsize == 4:
        return (f"{dtype.name} is read as float32, exact up to 16,777,216; the output is float32",)
    if dtype.kind == "c":
        raise VolumeError(f"{path} holds complex numbers ({dtype.name}); give its magnitude as float32")
    raise VolumeError(
        f"{path} has dtype {dtype.name}, which is not among {', '.join(KEPT_DTYPES)}; "
        "convert it to uint16 or float32 first"
    )


def pixel_dtype(stored: np.dtype) -> np.dtype:
    """Return the dtype in which ``SourceVolume.read`` gives pixels of ``stored``, which ``check_pixels`` accepted."""
    if stored.kind == "b":
        return np.dtype(np.uint8)
    if stored.kind in "iu" and stored.itemsize == 4:
        return np.dtype(np.float32)
    return stored.newbyteorder("=")


def as_pixels(block: np.ndarray) -> np.ndarray:
    """Return ``block`` in the dtype of ``pixel_dtype``, itself if it has it; of truth values 0 and 255."""
    if block.dtype.kind == "b":
        return block.astype(np.uint8) * np.uint8(255)
    return block.astype(pixel_dtype(block.dtype), copy=False)


def output_dtype(dtype: np.dtype) -> np.dtype:
    """Return the dtype written for an input of ``dtype``: the same, except that any float becomes float32."""
    return np.dtype(np.float32) if dtype.kind == "f" else dtype.newbyteorder("=")


def check_block(spec: TargetSpec, z: int, rows: slice, cols: slice, block: np.ndarray) -> None:
    """Raise ValueError unless ``block`` has the dtype and the place that the target expects."""
    depth, height, width = spec.shape
    if not (0 <= z < depth and 0 <= rows.start < rows.stop <= height and 0 <= cols.start < cols.stop <= width):
        raise ValueError(f"block at slice {z}, rows {rows}, columns {cols} is outside the volume {spec.shape}")
    expected = (rows.stop - rows.start, cols.stop - cols.start)
    if block.shape != expected or block.dtype != spec.dtype:
        raise ValueError(f"block is {block.shape} {block.dtype}, expected {expected} {spec.dtype}")

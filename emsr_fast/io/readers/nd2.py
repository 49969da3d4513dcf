"""ND2 in (Nikon): the metadata by nd2, the pixels from their places in the file; that library maps the file instead."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, overload

import numpy as np

from emsr_fast.errors import VolumeError
from emsr_fast.io.axes import Asked, layout_of
from emsr_fast.io.readers.parts.array import ArraySource
from emsr_fast.io.readers.parts.extra import needed, reading
from emsr_fast.io.readers.parts.file_array import FileArray
from emsr_fast.io.readers.parts.files import DamagedError
from emsr_fast.io.volume import SourceVolume, VolumeInfo, check_pixels, pixel_dtype
from emsr_fast.io.voxels import UNKNOWN, VoxelSize, amount

# every part begins so: mark, bytes of its name, bytes behind the name
_PART, _MARK = struct.Struct("<IIQ"), 0x0ABECEDA
# the file ends with this name and the place of the list of parts
_END, _END_NAME = struct.Struct("<32sQ"), b"ND2 CHUNK MAP SIGNATURE 0000001!"
_FRAME, _PLACE = b"ImageDataSeq|", struct.Struct("<QQ")
_TIME = 8  # bytes before the pixels of a frame
_MOST_DIGITS, _MOST_FRAMES = 10, 10**6


def open_source(path: Path, key: str | None, asked: Asked) -> SourceVolume:
    """Return a channel of the stack in the file, opened for reading."""
    if key is not None:
        raise VolumeError(f"{path} is an ND2 file, which holds one image: leave `key={key}` out")
    with needed("nd2", path):
        import nd2
    parts = _parts(path)
    with reading(path, "ND2"), nd2.ND2File(str(path)) as file:
        stated = file.attributes
        if file.is_rgb:
            raise VolumeError(f"{path} is a colour image (RGB); convert it to grey first")
        if stated.compressionType is not None:
            raise VolumeError(
                f"{path} is compressed ({stated.compressionType}); save it without compression, or as TIFF"
            )
        outer = {name: int(side) for name, side in file.sizes.items() if name not in "CYX"}
        height, width, channels = int(stated.heightPx), int(stated.widthPx or 0), int(stated.componentCount)
        width_bytes = int(stated.widthBytes or 0)
        shape = (*outer.values(), height, width, channels)
        dtype = np.dtype(f"<{'f' if stated.pixelDataType == 'float' else 'u'}{stated.bitsPerComponentInMemory // 8}")
        if min(shape) < 1 or width_bytes < width * channels * dtype.itemsize:
            raise DamagedError(f"{path} is damaged: rows of {width} x {channels} pixels have {width_bytes} bytes")
        layout, words = layout_of(shape, path, asked=asked, stated=f"{''.join(outer)}YXC")
        notes = list(check_pixels(layout.stack, dtype, path))
        voxel_size_nm = _voxel_size(file, notes)
    rows = _Rows(path, parts, prod(outer.values()), height, width_bytes)
    array = FileArray(path, rows, dtype, shape)
    missing = {number: f"{path} has no frame {number}; copy it again" for number in rows.missing}
    info = VolumeInfo(
        path=path,
        format="ND2",
        shape=layout.stack,
        dtype=pixel_dtype(dtype),
        axes=words,
        chunks=(1, height, width),
        voxel_size_nm=voxel_size_nm,
        voxel_size_from="ND2 calibration" if voxel_size_nm != UNKNOWN else "not stated in the file",
        notes=tuple(notes),
        damaged=missing,
    )
    return ArraySource(array, layout, info, chunked=False, close=array.close)


class _Rows(Sequence[int]):
    """Where each row of each frame begins; rows may have bytes behind their pixels."""

    def __init__(self, path: Path, parts: Mapping[bytes, tuple[int, int]], frames: int, height: int, row: int) -> None:
        self._begins: dict[int, int] = {}
        for name, (begin, size) in parts.items():
            number = _number_of(name)
            if number is None or number >= frames:
                continue
            if size < _TIME + height * row:
                raise DamagedError(f"{path} is damaged: frame {number} has {size} bytes; copy it again")
            self._begins[number] = begin + _TIME
        if not self._begins or frames > _MOST_FRAMES:
            raise DamagedError(f"{path} has {len(self._begins)} of its {frames} frames; copy it again")
        self.missing = [number for number in range(frames) if number not in self._begins]
        self._path, self._frames, self._height, self._row = path, frames, height, row

    def __len__(self) -> int:
        return self._frames * self._height

    def __iter__(self) -> Iterator[int]:
        yield from (begin + (self._height - 1) * self._row for begin in self._begins.values())

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: Any) -> Any:
        frame, row = divmod(index, self._height)
        if frame not in self._begins:
            raise DamagedError(f"{self._path} has no frame {frame}; copy it again")
        return self._begins[frame] + row * self._row


def _number_of(name: bytes) -> int | None:
    number = name[len(_FRAME) : -1]
    return int(number) if name.startswith(_FRAME) and number.isdigit() and len(number) < _MOST_DIGITS else None


def _parts(path: Path) -> dict[bytes, tuple[int, int]]:
    """Return by the name of each part where its content begins, and its bytes.

    Raises:
        DamagedError: one of them is not in the file: the library takes memory for what it claims.
    """
    with path.open("rb") as file, reading(path, "ND2"):
        whole = file.seek(0, 2)
        file.seek(-_END.size, 2)
        name, place = _END.unpack(file.read(_END.size))
        if name != _END_NAME:
            raise DamagedError(f"{path} is truncated: it does not end with its list of parts; copy it again")
        begin, size = _part(file, place, whole, path)
        file.seek(begin)
        listed = file.read(size)
        found, at = {}, 0
        while (end := listed.find(b"!", at)) >= 0 and not listed.startswith(_END_NAME, at):
            named, at = listed[at : end + 1], end + 1 + _PLACE.size
            found[named] = _part(file, _PLACE.unpack(listed[end + 1 : at])[0], whole, path)
        return found


def _part(file: BinaryIO, place: int, whole: int, path: Path) -> tuple[int, int]:
    """Return where the content of the part at ``place`` begins, and its bytes, of a file with ``whole`` bytes."""
    if place + _PART.size <= whole:
        file.seek(place)
        mark, named, size = _PART.unpack(file.read(_PART.size))
        begin = place + _PART.size + named
        if mark == _MARK and begin + size <= whole:
            return begin, size
    raise DamagedError(f"{path} is damaged: the part at byte {place} is not in its {whole} bytes; copy it again")


def _voxel_size(file: Any, notes: list[str]) -> VoxelSize:
    try:
        volume = file.metadata.channels[0].volume
    except Exception as error:  # the library's own, for metadata that it does not expect
        notes.append(f"its calibration cannot be read ({type(error).__name__}: {error}): taken as unknown")
        return UNKNOWN
    x, y, z = (
        amount(float(step), "um", f"ND2 calibration {axis}", notes) if known else None
        for axis, step, known in zip("xyz", volume.axesCalibration, volume.axesCalibrated, strict=True)
    )
    return z, y, x

"""The main header of an MRC file: whether a file is MRC, its byte order, and what was assumed."""

from __future__ import annotations

import lzma
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from emsr_fast.errors import VolumeError
from emsr_fast.io.readers.parts.packed import opened, packing_of, suffix_inside

HEADER_BYTES = 1024
BYTES_PER_PIXEL = {0: 1, 1: 2, 2: 4, 3: 4, 4: 8, 6: 2, 12: 2}
# under these names a file may be MRC although its header lacks the mark
MRC_SUFFIXES = (".mrc", ".mrcs", ".map", ".rec", ".st", ".ali", ".preali", ".ccp4")

_MARK, _MARK_AT, _STAMP_AT = b"MAP", 208, 212
_STAMPS = {b"\x44\x44": "<", b"\x44\x41": "<", b"\x11\x11": ">"}
_ORDERS = {"<": "little-endian", ">": "big-endian"}
_UNPACK_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)


@dataclass(frozen=True)
class MrcHeader:
    """The first 1024 bytes of an MRC file, and how they are read."""

    raw: bytes
    order: str  # "<" or ">"
    notes: tuple[str, ...]  # what was assumed
    marked: bool  # whether it has the mark MAP, and with it the places of today's standard

    @property
    def numbers(self) -> _Numbers:
        """Its numbers about the voxels."""
        return _numbers(self.raw, self.order)


@dataclass(frozen=True)
class _Numbers:
    shape: tuple[int, int, int]  # Z, Y, X
    mode: int
    axes: tuple[int, int, int]
    extended: int  # bytes of the extended header

    @property
    def needed(self) -> int:
        """The least number of bytes of the whole file."""
        z, y, x = self.shape
        return HEADER_BYTES + self.extended + z * y * x * BYTES_PER_PIXEL.get(self.mode, 1)

    @property
    def can_be_true(self) -> bool:
        return (
            self.mode in BYTES_PER_PIXEL
            and min(self.shape) >= 1
            and self.extended >= 0
            and (self.axes == (0, 0, 0) or sorted(self.axes) == [1, 2, 3])
        )


def is_mrc(path: Path) -> bool:
    """Return whether ``path`` is an MRC file, compressed or not: by its mark, or by a header that fits the file."""
    if not path.is_file():
        return False
    try:
        with opened(path) as file:
            raw = file.read(HEADER_BYTES)
    except _UNPACK_ERRORS:
        return False
    if raw[_MARK_AT : _MARK_AT + 3] == _MARK:
        return True
    if len(raw) < HEADER_BYTES or suffix_inside(path) not in MRC_SUFFIXES:
        return False
    size = _size_of(path)
    return any((found := _numbers(raw, order)).can_be_true and found.needed <= size for order in _ORDERS)


def read_header(path: Path) -> MrcHeader:
    """Return the main header of the MRC file ``path``; raise VolumeError if it claims more than the file holds."""
    try:
        with opened(path) as file:
            raw = file.read(HEADER_BYTES)
    except _UNPACK_ERRORS as error:
        raise VolumeError(f"{path} cannot be unpacked: {error}; copy it again") from error
    size = _size_of(path)
    if len(raw) < HEADER_BYTES:
        raise VolumeError(f"{path} is truncated: {len(raw)} bytes, an MRC header has {HEADER_BYTES}; copy it again")
    notes = []
    if not (marked := raw[_MARK_AT : _MARK_AT + 3] == _MARK):
        notes.append("its header lacks the mark MAP (Amira's, or older than 2000): read as MRC, since it fits the file")
    stamp = raw[_STAMP_AT : _STAMP_AT + 2]
    order, found = _order_of(raw, size)
    if _STAMPS.get(stamp) != order:
        wrong = "no machine stamp" if stamp == b"\0\0" else f"the machine stamp {stamp.hex(' ')}"
        notes.append(f"its header has {wrong}: read as {_ORDERS[order]}, in which its numbers make sense")
    _check(found, size, path)
    return MrcHeader(raw, order, tuple(notes), marked)


def _order_of(raw: bytes, size: float) -> tuple[str, _Numbers]:
    """Return the byte order of the stamp, or the other one if only that makes sense, and the numbers in this order."""
    said = _STAMPS.get(raw[_STAMP_AT : _STAMP_AT + 2], "<")
    orders = [(order, _numbers(raw, order)) for order in sorted(_ORDERS, key=lambda order: order != said)]
    fitting = [one for one in orders if one[1].can_be_true and one[1].needed <= size]
    possible = [one for one in orders if one[1].can_be_true]
    return (fitting or possible or orders)[0]


def _check(found: _Numbers, size: float, path: Path) -> None:
    z, y, x = found.shape
    if found.mode not in BYTES_PER_PIXEL:
        raise VolumeError(
            f"{path} has pixels of MRC mode {found.mode}, which is not read; save it as mode 0, 1, 2 or 6"
        )
    if min(found.shape) < 1 or found.extended < 0:
        raise VolumeError(f"{path} is corrupt: {x} x {y} x {z} voxels, extended header of {found.extended} bytes")
    if found.needed > size:
        raise VolumeError(
            f"{path} is truncated: {x} x {y} x {z} voxels of mode {found.mode} need {found.needed} bytes, "
            f"the file has {size:.0f}; copy it again"
        )


def _size_of(path: Path) -> float:
    """Return how many bytes a file has; infinity for a compressed one, whose size is known only when it is unpacked."""
    return path.stat().st_size if packing_of(path) is None else float("inf")


def _numbers(raw: bytes, order: str) -> _Numbers:
    x, y, z, mode = struct.unpack_from(f"{order}4i", raw)
    axes = struct.unpack_from(f"{order}3i", raw, 64)
    (extended,) = struct.unpack_from(f"{order}i", raw, 92)
    return _Numbers((z, y, x), mode, axes, extended)

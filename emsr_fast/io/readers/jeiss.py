"""Jeiss ``.dat`` in: slices of Janelia's FIB-SEM microscopes, versions 1 to 9, as jeiss-specs describes them."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np

from emsr_fast.errors import VolumeError
from emsr_fast.io.axes import Asked
from emsr_fast.io.readers.parts.files import DamagedError
from emsr_fast.io.readers.parts.flat import Flat, flat_source
from emsr_fast.io.volume import SourceVolume, instrument_name
from emsr_fast.io.voxels import FLOAT32, amount

_HEADER_BYTES = 1024
_NEWEST = 9
# by version from which they hold: the place of the pixel size and its type; of the detectors' names and their lengths
_PIXEL_SIZE = {1: (416, ">d"), 3: (464, ">f")}
_DETECTORS = {1: ((380, 10), (390, 18), (700, 20), (720, 20)), 3: ((380, 10), (390, 18), (410, 20), (430, 20))}
_MACHINE_SINCE, _MACHINE = 5, (800, 30)


def open_source(path: Path, key: str | None, asked: Asked) -> SourceVolume:
    """Return a channel of the slice in the file, opened for reading."""
    if key is not None:
        raise VolumeError(f"{path} is a Jeiss file, which holds one slice: leave `key={key}` out")
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES:
        raise DamagedError(f"{path} is truncated: it ends within its header of {_HEADER_BYTES} bytes; copy it again")
    version = _number(header, 4, ">H")
    channels, eight_bit = _number(header, 32, ">B"), _number(header, 33, ">B")
    width, height = _number(header, 100, ">I"), _number(header, 104, ">I")
    if not version or not channels or not width or not height:
        raise DamagedError(
            f"{path} is damaged: its header has version {version}, {channels} channels and {width} x {height} pixels; "
            "copy it again"
        )
    notes: list[str] = []
    if version > _NEWEST:
        notes.append(f"its version is {version}: read as version {_NEWEST}, the newest that is known")
    names = [_text(header, *place) for place in _since(_DETECTORS, version)[:channels]]
    if channels > 1 and any(names):
        shown = (f"{number} {name or 'not named'}" for number, name in enumerate(names))
        notes.append(f"channels, by detector: {', '.join(shown)}")
    size = float(_number(header, *_since(_PIXEL_SIZE, version)))
    size_nm = amount(size, "nm", "Jeiss pixel size", notes, FLOAT32) if size and math.isfinite(size) else None
    flat = Flat(
        format=f"Jeiss dat {version}",
        dtype=np.dtype("u1" if eight_bit == 1 else ">i2"),
        shape=(height, width, channels),
        axes="YXC",
        offset=_HEADER_BYTES,
        sizes_nm=(size_nm, size_nm, None),
        sizes_from="Jeiss header",
        notes=tuple(notes),
        instrument=(_text(header, *_MACHINE) if version >= _MACHINE_SINCE else "") or None,
    )
    return flat_source(path, flat, asked)


def _since(table: dict[int, Any], version: int) -> Any:
    return table[max(first for first in table if first <= version)]


def _number(header: bytes, at: int, kind: str) -> Any:
    return struct.unpack_from(kind, header, at)[0]


def _text(header: bytes, at: int, length: int) -> str:
    return instrument_name(header[at : at + length].split(b"\0", 1)[0].decode("latin-1"))

"""Raw binary in: pixels without a header, described as in ``raw=100x2048x2048:uint16be@512:30x8x8nm``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from emsr_fast.errors import UsageError, VolumeError
from emsr_fast.io.axes import Asked
from emsr_fast.io.locations import RAW_KEY
from emsr_fast.io.readers.parts.flat import Flat, flat_source
from emsr_fast.io.volume import SourceVolume
from emsr_fast.io.voxels import nanometres
from emsr_fast.wording import counted, quoted

_FORM = re.compile(
    r"(?P<sides>\d{1,12}(?:x\d{1,12}){1,3}):(?P<dtype>[<>]?[a-z]+\d+(?:le|be)?)"
    r"(?:@(?P<offset>\d{1,15}))?(?::(?P<voxel>[0-9.]+(?:x[0-9.]+)*)(?P<unit>[a-z\u00b5\u03bc\u00c5\u212b]+))?",
    re.ASCII | re.IGNORECASE,
)
_LONG = {"float16": "f2", "float32": "f4", "float64": "f8"}
_LONG |= {f"{word}int{bits}": f"{word or 'i'}{bits // 8}" for word in ("", "u") for bits in (8, 16, 32)}
_FORM_TOLD = (
    "give sides, slowest first, and the type, such as 100x2048x2048:uint16; if wanted the byte order (uint16be or >u2; "
    "else little-endian), the first byte (@512) and the voxel size (:30x8x8nm)"
)


@dataclass(frozen=True)
class RawPixels:
    """How the pixels of a file without a header are stored."""

    shape: tuple[int, ...]  # slowest axis first
    dtype: np.dtype
    offset: int  # bytes before the first pixel
    sizes_nm: tuple[float, ...] | None  # of a voxel along each axis

    @property
    def bytes(self) -> int:
        """How large the file must be."""
        return self.offset + prod(self.shape) * self.dtype.itemsize


def parse_raw(text: str) -> RawPixels:
    """Return what ``text`` says, such as "100x2048x2048:uint16be@512:30x8x8nm".

    Raises:
        UsageError: another form, a side of 0, or a type that no image has.
    """
    found = _FORM.fullmatch(text)
    dtype = None if found is None else _dtype(found["dtype"].lower())
    if found is None or dtype is None:
        raise UsageError(f"`raw` is {quoted(text)}; {_FORM_TOLD}")
    shape = tuple(int(side) for side in found["sides"].lower().split("x"))
    if min(shape) < 1:
        raise UsageError(f"`raw` {quoted(text)} has a side of 0; {_FORM_TOLD}")
    return RawPixels(shape, dtype, int(found["offset"] or 0), _sizes(found, len(shape), text))


def _dtype(text: str) -> np.dtype | None:
    order = {"le": "<", "be": ">"}.get(text[-2:], "")
    name = text.removesuffix("le").removesuffix("be") if order else text
    if name[0] in "<>":
        order, name = ("", "") if order else (name[0], name[1:])
    short = _LONG.get(name, name)
    return np.dtype((order or "<") + short) if short in _LONG.values() else None


def _sizes(found: re.Match[str], axes: int, text: str) -> tuple[float, ...] | None:
    if found["voxel"] is None:
        return None
    try:
        sizes = [nanometres(float(side), found["unit"]) for side in found["voxel"].lower().split("x")]
    except ValueError:
        sizes = [None]
    known = tuple(size for size in sizes if size is not None)
    if len(known) != len(sizes) or len(known) != axes:
        raise UsageError(
            f"`raw` {quoted(text)} has no voxel size with a length for each of its {axes} axes; "
            f"such as :{'x'.join(['30', '8', '8', '8'][-axes:])}nm"
        )
    return known


def open_source(path: Path, key: str | None, asked: Asked) -> SourceVolume:
    """Return the pixels of ``path`` as ``key`` describes them, "raw=100x2048x2048:uint16", opened for reading.

    Raises:
        UsageError: ``key`` has another form.
        VolumeError: the file has another number of bytes.
    """
    text = (key or "").removeprefix(RAW_KEY)
    raw = parse_raw(text)
    size, needed = path.stat().st_size, raw.bytes
    if size != needed:
        first = f" from byte {raw.offset}" if raw.offset else ""
        more = size - needed
        raise VolumeError(
            f"{path} has {counted(size, 'byte')}, and {quoted(text)} needs {needed:,}{first}, "
            f"{counted(abs(more), 'byte')} {'fewer' if more > 0 else 'more'}; check sides and type"
            + (f", or leave out a header of that size with @{raw.offset + more}" if more > 0 else "")
        )
    order = "" if raw.dtype.itemsize == 1 else ", big-endian" if raw.dtype.byteorder == ">" else ", little-endian"
    return flat_source(
        path,
        Flat(
            format=f"raw binary{order}{f', from byte {raw.offset}' if raw.offset else ''}",
            dtype=raw.dtype,
            shape=raw.shape,
            axes="CZYX"[-len(raw.shape) :],
            offset=raw.offset,
            sizes_nm=raw.sizes_nm or (None,) * len(raw.shape),
            sizes_from="as `raw` says",
            key=key,
        ),
        asked,
    )

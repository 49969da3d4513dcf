"""NRRD in: the header by pynrrd, the pixels from their place; with gzip or bzip2, or in a file beside a ``.nhdr``."""

from __future__ import annotations

import bz2
import gzip
import io
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from emsr_fast.errors import VolumeError
from emsr_fast.io.axes import Asked
from emsr_fast.io.readers.parts.extra import needed, reading
from emsr_fast.io.readers.parts.files import check_inside, check_readable
from emsr_fast.io.readers.parts.flat import Flat, flat_source
from emsr_fast.io.readers.parts.packed import unpacked
from emsr_fast.io.volume import SourceVolume
from emsr_fast.io.voxels import PRODUCT, amount
from emsr_fast.wording import listed, quoted, shortened

_LONGEST_HEADER = 2**20  # bytes
_MOST_AXES = 16  # the format's own limit
_KINDS = {"raw": None, "gzip": gzip.open, "gz": gzip.open, "bzip2": bz2.open, "bz2": bz2.open}
_BITS = {"char": 8, "short": 16, "short int": 16, "int": 32, "long long": 64, "long long int": 64, "longlong": 64}
_COLOURS = ("rgb-color", "rgba-color", "hsv-color", "xyz-color", "3-color", "4-color")
_SPACES = ("domain", "space", "", "none")


def open_source(path: Path, key: str | None, asked: Asked) -> SourceVolume:
    """Return the volume of the file, opened for reading."""
    if key is not None:
        raise VolumeError(f"{path} is a NRRD file, which holds one volume: leave `key={key}` out")
    with needed("pynrrd", path):
        import nrrd
    with reading(path, "NRRD"):
        lines, begin = _lines(path)
        header = nrrd.read_header(io.BytesIO(b"".join(lines)))
        place, begin = _data(header, path, begin)
        encoding = str(header.get("encoding", "")).lower()
        if encoding not in _KINDS:
            raise VolumeError(f"{path} has the encoding {quoted(encoding)}; save it with one of {', '.join(_KINDS)}")
        flat = _flat(header, path)
        return _opened(header, flat, place, begin, _KINDS[encoding], asked)


def _lines(path: Path) -> tuple[list[bytes], int]:
    """Return the lines of the header up to the empty one, and the byte behind it."""
    lines: list[bytes] = []
    with path.open("rb") as file:
        while line := file.readline(_LONGEST_HEADER - sum(map(len, lines))):
            lines.append(line)
            if not line.strip():
                return lines, file.tell()
            if file.tell() >= _LONGEST_HEADER:
                raise VolumeError(f"{path} is damaged: its header has no end; copy it again")
        return lines, file.tell()


def _data(header: Mapping[str, Any], path: Path, begin: int) -> tuple[Path, int]:
    """Return the file with the pixels, and the byte where they or the lines before them begin."""
    name = header.get("data file", header.get("datafile"))
    if name is None:
        return path, begin
    if str(name).upper().startswith("LIST") or "%" in str(name):
        raise VolumeError(f"{path} has its pixels in several files ({shortened(str(name))}); save it as one .nrrd file")
    place = path.parent / str(name)
    check_inside(path.parent, place, path)
    check_readable(place)
    return place, 0


def _opened(header: Mapping[str, Any], flat: Flat, place: Path, begin: int, kind: Any, asked: Asked) -> SourceVolume:
    lines, skipped = (int(header.get(f"{what} skip", header.get(f"{what}skip", 0))) for what in ("line", "byte"))
    size = place.stat().st_size
    with place.open("rb") as file:
        file.seek(begin)
        for _ in range(lines):
            if not file.readline():
                break
        begin = file.tell()
    if skipped < -1 or (skipped == -1 and kind is not None):
        raise VolumeError(f"{place}: its header has the byte skip {skipped}; save it again")
    if kind is None:
        # -1: the pixels end with the file
        at = size - flat.end if skipped == -1 else begin + skipped
        if at < 0:
            raise VolumeError(f"{place} is truncated: its pixels need {flat.end} bytes, it has {size}; copy it again")
        return flat_source(place, _from(flat, at), asked)

    def content(needed: int) -> IO[bytes]:
        with place.open("rb") as packed:
            packed.seek(begin)
            return unpacked(place, needed, kind(packed))

    return flat_source(place, _from(flat, skipped), asked, content)


def _from(flat: Flat, offset: int) -> Flat:
    return Flat(**{**vars(flat), "offset": offset})


def _flat(header: Mapping[str, Any], path: Path) -> Flat:
    shape = tuple(int(side) for side in header["sizes"])
    if not 2 <= len(shape) <= _MOST_AXES or min(shape) < 1 or int(header["dimension"]) != len(shape):
        raise VolumeError(f"{path} is damaged: its header states the sides {shape}; copy it again")
    kinds = [str(kind).lower() for kind in header.get("kinds", ())] or [""] * len(shape)
    if any(kind in _COLOURS for kind in kinds):
        raise VolumeError(f"{path} is a colour image ({listed(kinds, 4)}); convert it to grey first")
    if "complex" in kinds:
        raise VolumeError(f"{path} holds complex numbers; give its magnitude as float32")
    notes: list[str] = []
    letters = _letters(kinds)
    sizes, stated = _sizes(header, letters, notes)
    return Flat(
        format="NRRD" if "encoding" not in header or header["encoding"] == "raw" else f"NRRD, {header['encoding']}",
        dtype=_dtype(header, path),
        shape=shape[::-1],
        axes=letters[::-1],
        offset=0,
        sizes_nm=sizes[::-1],
        sizes_from=stated,
        notes=tuple(notes),
    )


def _letters(kinds: list[str]) -> str:
    """Return a letter for each axis, the fastest first: three of space, one of time, all others are channels."""
    spaces, others = iter("XYZ"), iter("CVWABDEFGHIJKLMN")
    return "".join(
        next(spaces, None) or next(others) if kind in _SPACES else "T" if kind == "time" else next(others)
        for kind in kinds
    )


def _dtype(header: Mapping[str, Any], path: Path) -> np.dtype:
    named = str(header["type"]).lower()
    found = {"float": "f4", "double": "f8"}.get(named)
    if found is None:
        name = named.removesuffix("_t")
        sign = "u" if name.startswith("u") else "i"
        bare = name.removeprefix("signed ").removeprefix("unsigned ").removeprefix("u").removeprefix("int")
        bits = int(bare) if bare in ("8", "16", "32", "64") else _BITS.get(bare or "int", 0)
        found = f"{sign}{bits // 8}" if bits else None
    if found is None:
        raise VolumeError(f"{path} has pixels of type {quoted(named)}; convert them to uint16 or float32 first")
    dtype = np.dtype(found)
    endian = str(header.get("endian", "")).lower()
    if dtype.itemsize > 1 and endian not in ("little", "big"):
        raise VolumeError(f"{path} does not state its byte order (endian); add it to the header, or save it again")
    return dtype.newbyteorder(">" if endian == "big" else "<")


def _sizes(header: Mapping[str, Any], letters: str, notes: list[str]) -> tuple[tuple[float | None, ...], str]:
    """Return the voxel size along each axis in nm, the fastest first, and which fields state them."""
    directions, spacings = header.get("space directions"), header.get("spacings")
    if directions is not None:
        steps = [float(np.linalg.norm(np.asarray(one, float))) if one is not None else np.nan for one in directions]
        units = [str(unit) for unit in header.get("space units", ())][:1] * len(steps)
        stated = "NRRD space directions"
    else:
        steps = [] if spacings is None else [float(step) for step in spacings]
        units = [str(unit) for unit in header.get("units", header.get("space units", ()))]
        stated = "NRRD spacings"
    steps = steps if len(steps) == len(letters) else [np.nan] * len(letters)
    if not any(units) and any(np.isfinite(step) and step not in (0, 1) for step in steps):
        notes.append(f"its voxel size has no unit ({stated[5:]}): taken as unknown")
    units = units if len(units) == len(letters) else [""] * len(letters)
    sizes = tuple(
        amount(step, unit.strip("\"' "), f"NRRD step along {letter.lower()}", notes, PRODUCT)
        if unit and letter in "XYZ" and np.isfinite(step) and step
        else None
        for step, unit, letter in zip(steps, units, letters, strict=True)
    )
    return sizes, stated

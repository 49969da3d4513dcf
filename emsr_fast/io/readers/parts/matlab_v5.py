"""The variables of MATLAB v5 to v7 files. Without scipy: it crashes on damaged tags, and reads all or nothing.

Source: MAT-File Format, The MathWorks, version 5; https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from emsr_fast.errors import VolumeError

_HEADER, _MATRIX, _COMPRESSED = 128, 14, 15
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = (
    "", "cell", "struct", "object", "char", "sparse", "float64", "float32", "int8", "uint8", "int16", "uint16", "int32",
    "uint32", "int64", "uint64", "function_handle", "opaque",
)  # fmt: skip
_NUMBERS = range(6, 16)
_COMPLEX, _LOGICAL = 0x0800, 0x0200
_BEGINNING = 4096  # bytes of a variable in which everything but its numbers lies
_MOST_AXES = 32
# what deflate can at most make of a byte
_MOST_EXPANDED = 1032


@dataclass(frozen=True)
class Variable:
    """One variable: its name and kind, and where its numbers are."""

    name: str
    kind: str  # a dtype's name, or MATLAB's class for what is not numbers; "logical", "complex"
    shape: tuple[int, ...]  # as MATLAB's size gives it; the first axis is the fastest
    stored: np.dtype  # of the numbers in the file, which may be narrower than the class
    offset: int  # of the numbers: in the file, or in the stream where that is compressed
    stream: tuple[int, int] | None  # offset and length of the compressed stream


def variables(path: Path) -> Iterator[Variable]:
    """Yield the variables of a file; their numbers are not read.

    Raises:
        VolumeError: the file is cut or its tags contradict each other.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        order = "<" if file.read(_HEADER)[126:128] == b"IM" else ">"
        at = _HEADER
        while at + 8 <= size:
            try:
                variable, at = _element(file, at, size, order)
            except (struct.error, zlib.error, ValueError) as error:
                raise VolumeError(f"{path} is corrupt at byte {at}: {error}; save it again") from error
            if variable is not None:
                yield variable


def numbers(path: Path, variable: Variable) -> np.ndarray:
    """Return the numbers of a variable in its shape: mapped from the file, or decompressed into memory."""
    if variable.stream is None:
        return np.memmap(path, variable.stored, "r", variable.offset, variable.shape, order="F")
    offset, count = variable.stream
    with path.open("rb") as file:
        file.seek(offset)
        packed = file.read(count)
    length = math.prod(variable.shape) * variable.stored.itemsize
    reader = zlib.decompressobj()
    try:
        # a little more than the numbers, so that the checksum at the end is seen
        content = reader.decompress(packed, variable.offset + length + 64)
    except zlib.error as error:
        raise VolumeError(f"{path}: variable {variable.name!r} does not decompress: {error}; save it again") from error
    if not reader.eof or len(content) < variable.offset + length:
        raise VolumeError(f"{path}: variable {variable.name!r} is not as long as its header states; save it again")
    flat = np.frombuffer(content, variable.stored, math.prod(variable.shape), variable.offset)
    return flat.reshape(variable.shape, order="F")


def _element(file: BinaryIO, at: int, size: int, order: str) -> tuple[Variable | None, int]:
    """Return the variable at byte ``at`` (None if it is something else), and where the next element begins."""
    file.seek(at)
    kind, count = struct.unpack(f"{order}II", file.read(8))
    body, end = at + 8, at + 8 + count
    if end > size:
        raise ValueError(f"{count} bytes are announced, {size - body} follow")
    if kind == _MATRIX:
        return _variable(file.read(min(count, _BEGINNING)), body, count, order, None), end
    if kind == _COMPRESSED:
        beginning = zlib.decompressobj().decompress(file.read(min(count, _BEGINNING)), _BEGINNING)
        kind, inner = struct.unpack_from(f"{order}II", beginning)
        if kind != _MATRIX or inner > _MOST_EXPANDED * count:
            raise ValueError(f"a compressed element of type {kind} claims {inner} bytes from {count}")
        return _variable(beginning[8:], 8, inner, order, (body, count)), end
    return None, end


def _variable(content: bytes, base: int, count: int, order: str, stream: tuple[int, int] | None) -> Variable | None:
    """Return the variable whose matrix begins at byte ``base`` and is ``count`` bytes long."""
    if count == 0:
        return None  # how MATLAB marks an empty place
    _, _, at, following = _tag(content, 0, order)
    (flags,) = struct.unpack_from(f"{order}I", content, at)
    number = flags & 0xFF
    if not 0 < number < len(_CLASSES):
        raise ValueError(f"class {number} is unknown")
    if _CLASSES[number] == "opaque":
        return None
    _, length, at, following = _tag(content, following, order)
    if length % 4 or not 0 < length // 4 <= _MOST_AXES:
        raise ValueError(f"its sides take {length} bytes")
    shape = struct.unpack_from(f"{order}{length // 4}i", content, at)
    _, length, at, following = _tag(content, following, order)
    name = content[at : at + length].decode("latin-1")
    kind = "logical" if flags & _LOGICAL else "complex" if flags & _COMPLEX else _CLASSES[number]
    if min(shape) < 1 or number not in _NUMBERS:
        return Variable(name, "empty" if number in _NUMBERS else kind, shape, np.dtype("u1"), 0, stream)
    stored_as, length, at, _ = _tag(content, following, order)
    if stored_as not in _STORED:
        raise ValueError(f"the numbers of {name!r} are of type {stored_as}, which is unknown")
    stored = np.dtype(f"{order}{_STORED[stored_as]}")
    if length != math.prod(shape) * stored.itemsize or at + length > count:
        raise ValueError(f"{name!r} has {length} bytes for {' x '.join(map(str, shape))} of {stored.name}")
    return Variable(name, kind, shape, stored, base + at, stream)


def _tag(content: bytes, at: int, order: str) -> tuple[int, int, int, int]:
    """Return an element's type, length and place, and where the next one begins."""
    kind, length = struct.unpack_from(f"{order}II", content, at)
    if kind >> 16:  # up to four bytes are packed into the tag
        return kind & 0xFFFF, kind >> 16, at + 4, at + 8
    return kind, length, at + 8, at + 8 + -(-length // 8) * 8

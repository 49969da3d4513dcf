"""The pixels that a PNG or JPEG claims, compared with what the file holds: Pillow reads what is missing as black."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from emsr_fast.io.readers.parts.files import DamagedError

_PIECE = 2**18  # bytes that are decompressed at a time
_MOST_EXPANDED = 1032  # bytes that deflate makes of one
# a block of 8 x 8 takes at least a bit; of files that claim little, nothing is lost
_MOST_JPEG, _FEW_PIXELS = 8 * 64, 2**26
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a pixel, by colour type
_WHOLE = ((0, 0, 1, 1),)
# x, y of the first pixel and the steps, of each pass of an interlaced image
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def check_claim(file: Path, kind: str, shape: tuple[int, int]) -> None:
    """Raise DamagedError if ``file`` is too small for its pixels, however well they are compressed.

    Args:
        kind: "PNG" or "JPEG".
        shape: rows and columns that its header states.
    """
    size, pixels = file.stat().st_size, shape[0] * shape[1]
    if kind == "PNG":
        with file.open("rb") as stream:
            possible = _expected(stream) <= _MOST_EXPANDED * size
    else:
        possible = pixels <= max(_FEW_PIXELS, _MOST_JPEG * size)
    if not possible:
        raise DamagedError(
            f"{file} claims {shape[0]} x {shape[1]} pixels, the file has {size} bytes; copy or export it again"
        )


def check_png_pixels(file: Path) -> None:
    """Compare the pixels of a PNG with its header.

    Raises:
        DamagedError: there are fewer or more of them.
        zlib.error: the pixels cannot be decompressed.
    """
    with file.open("rb") as stream:
        expected, found, unpacker = _expected(stream), 0, zlib.decompressobj()
        for piece in _data(stream):
            while piece and not unpacker.eof and found <= expected:
                found += len(unpacker.decompress(piece, _PIECE))
                piece = unpacker.unconsumed_tail
    if found != expected:
        fewer = "fewer" if found < expected else "more"
        raise DamagedError(f"{file} is damaged: it has {fewer} pixels than its header states; copy or export it again")


def _expected(stream: BinaryIO) -> int:
    """Return how many bytes the pixels of a PNG take, by its header: rows of samples, each behind a byte."""
    stream.seek(16)
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", stream.read(13))
    total = 0
    for x, y, step_x, step_y in _ADAM7 if interlaced else _WHOLE:
        columns, rows = (
            max(0, -(-(side - first) // step)) for side, first, step in ((width, x, step_x), (height, y, step_y))
        )
        total += rows * (1 + (columns * depth * _SAMPLES[colour] + 7) // 8) if columns else 0
    return total


def _data(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the compressed pixels of a PNG in pieces."""
    stream.seek(8)
    while len(head := stream.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            return
        end = stream.tell() + length
        while kind == b"IDAT" and (piece := stream.read(min(_PIECE, end - stream.tell()))):
            yield piece
        stream.seek(end + 4)  # behind its checksum

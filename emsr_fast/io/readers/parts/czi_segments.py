"""The segments of a CZI file, compared with each other and the file: libCZI ends the process on some that disagree."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from emsr_fast.io.readers.parts.files import DamagedError

# a segment: name, bytes taken, bytes used; its content follows
_SEGMENT = struct.Struct("<16sqq")
# of the file: version, two reserved, two identifiers, part; the places of directory, metadata and attachments
_FILE = struct.Struct("<iiii16s16siqqiq")
# an entry: kind, type of pixels, place, part, compression, pyramid, 5 spare, number of dimensions
_ENTRY, _DIMENSION = struct.Struct("<2siqiiB5si"), 20
# of a tile: bytes of its metadata, attachment and pixels; the entry follows
_SIZES, _LEAST_BEFORE = struct.Struct("<iiq"), 256
_BEFORE_ENTRIES = {b"ZISRAWDIRECTORY": 128, b"ZISRAWATTDIR": 256}  # bytes between the number of entries and the first
_ATTACHMENT = 128  # bytes of an entry of that kind
_MOST_DIMENSIONS = 32


def check_segments(path: Path) -> None:
    """Raise DamagedError if a part of the file ``path`` is not where and as large as another says.

    Raises:
        DamagedError: a place or size leads out of the file, or an entry of the directory has no end.
    """
    with path.open("rb") as file:
        whole = file.seek(0, 2)
        try:
            _check(file, whole)
        except (struct.error, OverflowError, ValueError, OSError) as error:
            reason = error if isinstance(error, _WrongError) else "a part of it leads out of the file"
            raise DamagedError(f"{path} is truncated or damaged: {reason}; copy it again") from error


class _WrongError(ValueError):
    """What is wrong with a file."""


def _check(file: BinaryIO, whole: int) -> None:
    file.seek(_SEGMENT.size)
    *_, directory, metadata, _, attachments = _FILE.unpack(file.read(_FILE.size))
    begin, used = _segment(file, directory, b"ZISRAWDIRECTORY", whole)
    for place in _entries(file, begin, used):
        _check_tile(file, place, whole)
    if metadata:
        begin, _ = _segment(file, metadata, b"ZISRAWMETADATA", whole)
        file.seek(begin)
        _check_sizes(
            begin + _LEAST_BEFORE, struct.unpack("<ii", file.read(8)), whole, f"its metadata at byte {metadata}"
        )
    if attachments:
        begin, _ = _segment(file, attachments, b"ZISRAWATTDIR", whole)
        file.seek(begin)
        (count,) = struct.unpack("<i", file.read(4))
        _check_sizes(begin + _BEFORE_ENTRIES[b"ZISRAWATTDIR"], [count * _ATTACHMENT], whole, "its list of attachments")


def _check_sizes(begin: int, sizes: Sequence[int], whole: int, what: str) -> None:
    if min(sizes) < 0 or begin + sum(sizes) > whole:
        raise _WrongError(f"{what} should have {sum(sizes)} bytes from byte {begin} of {whole} on")


def _segment(file: BinaryIO, place: int, name: bytes, whole: int) -> tuple[int, int]:
    """Return where the content of the segment at ``place`` begins, and how many bytes it uses."""
    if not 0 < place <= whole - _SEGMENT.size:
        raise _WrongError(f"its {name.decode()} should be at byte {place} of {whole}")
    file.seek(place)
    found, taken, used = _SEGMENT.unpack(file.read(_SEGMENT.size))
    begin = place + _SEGMENT.size
    used = used or taken  # 0: all of it
    if found.rstrip(b"\0") != name or used < 0 or begin + used > whole:
        raise _WrongError(f"at byte {place} of {whole} there is no {name.decode()} of {used} bytes")
    return begin, used


def _entries(file: BinaryIO, begin: int, used: int) -> Iterator[int]:
    """Yield the place of each tile in the directory."""
    file.seek(begin)
    content = file.read(used)
    (count,) = struct.unpack_from("<i", content)
    if not 0 <= count <= len(content) // _ENTRY.size:
        raise _WrongError(f"its list of {count} tiles has {used} bytes")
    at = _BEFORE_ENTRIES[b"ZISRAWDIRECTORY"]
    for _ in range(count):
        place, part, size = _entry(content, at)
        if not part:  # tiles of other parts are in other files
            yield place
        at += size


def _entry(content: bytes, at: int) -> tuple[int, int, int]:
    """Return of the entry at ``at`` the tile's place, the number of the file that it is in, and the entry's bytes."""
    kind, _, place, part, _, _, _, dimensions = _ENTRY.unpack_from(content, at)
    size = _ENTRY.size + _DIMENSION * dimensions
    if kind != b"DV" or not 0 < dimensions <= _MOST_DIMENSIONS or at + size > len(content):
        raise _WrongError(f"the entry of a tile has {dimensions} dimensions")
    return place, part, size


def _check_tile(file: BinaryIO, place: int, whole: int) -> None:
    begin, _ = _segment(file, place, b"ZISRAWSUBBLOCK", whole)
    file.seek(begin)
    head = file.read(_SIZES.size + _ENTRY.size + _DIMENSION * _MOST_DIMENSIONS)
    sizes = _SIZES.unpack_from(head)
    *_, size = _entry(head, _SIZES.size)
    _check_sizes(begin + max(_LEAST_BEFORE, _SIZES.size + size), sizes, whole, f"the tile at byte {place}")

"""Whether a file is NIfTI: by the mark in its header, compressed or not."""

from __future__ import annotations

import lzma
import zlib
from pathlib import Path

from emsr_fast.io.readers.parts.packed import opened, packing_of, suffix_inside

HEADER_BYTES = {1: 348, 2: 540}  # by version
# the mark and its place: of both versions, with the pixels in the same or in another file
_MARKS = ((344, b"n+1\0"), (344, b"ni1\0"), (4, b"n+2\0"), (4, b"ni2\0"))


def is_nifti(path: Path) -> bool:
    """Return whether ``path`` is a NIfTI file, compressed or not."""
    if not path.is_file() or (packing_of(path) and suffix_inside(path) != ".nii"):
        return False
    try:
        return mark_of(begin_of(path)) is not None
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        return False


def begin_of(path: Path) -> bytes:
    """Return the bytes of the longest header there is."""
    with opened(path) as file:
        return file.read(max(HEADER_BYTES.values()))


def mark_of(begin: bytes) -> bytes | None:
    """Return the mark in the first bytes of a file, None if it is not NIfTI."""
    return next((mark for at, mark in _MARKS if begin[at : at + len(mark)] == mark), None)

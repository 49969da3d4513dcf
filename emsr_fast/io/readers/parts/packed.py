"""Files compressed as a whole, such as a.mrc.gz: the kind of compression, and the content as a stream."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

_LONGEST_MAGIC = 6


@dataclass(frozen=True)
class Packing:
    """One way to compress a file."""

    name: str
    magic: bytes
    suffixes: tuple[str, ...]
    unpack: str  # the command that unpacks a file and keeps it
    module: str | None = None  # of Python, with ``open(path)``; None where Python has none


PACKINGS = (
    Packing("gzip", b"\x1f\x8b", (".gz",), "gunzip -k", "gzip"),
    Packing("bzip2", b"BZh", (".bz2",), "bunzip2 -k", "bz2"),
    Packing("xz", b"\xfd7zXZ\0", (".xz",), "unxz -k", "lzma"),
    Packing("Zstandard", b"\x28\xb5\x2f\xfd", (".zst",), "unzstd"),
    Packing("compress", b"\x1f\x9d", (".Z",), "uncompress -k"),
    Packing("ZIP", b"PK\x03\x04", (".zip",), "unzip"),
    Packing("7-Zip", b"7z\xbc\xaf\x27\x1c", (".7z",), "7z x"),
)


def packing_of(path: Path) -> Packing | None:
    """Return how the file ``path`` is compressed, by its first bytes; None if it is not, or is no file."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        begin = file.read(_LONGEST_MAGIC)
    return next((packing for packing in PACKINGS if begin.startswith(packing.magic)), None)


def opened(path: Path) -> BinaryIO:
    """Open the content of ``path``, unpacked where Python can, for reading from the start."""
    packing = packing_of(path)
    if packing is None or packing.module is None:
        return path.open("rb")
    return cast(BinaryIO, importlib.import_module(packing.module).open(path))


def suffix_inside(path: Path) -> str:
    """Return the suffix of a file's name in small letters, without that of its compression: .mrc of a.MRC.gz."""
    packed = {suffix.lower() for packing in PACKINGS for suffix in packing.suffixes}
    name = Path(path.stem) if path.suffix.lower() in packed else path
    return name.suffix.lower()

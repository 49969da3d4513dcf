"""Files compressed as a whole, such as a.mrc.gz: the kind of compression, and the content as a stream."""

from __future__ import annotations

import importlib
import lzma
import tempfile
import zlib
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, cast

from emsr_fast.errors import VolumeError
from emsr_fast.wording import shell

# of a compressed file: more is better unpacked once and for all
_MOST_UNPACKED, _UNPACKED_AT_ONCE = 2**31, 2**24
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


def unpacked(path: Path, needed: int, content: BinaryIO | None = None) -> IO[bytes]:
    """Return the first ``needed`` bytes of the content of ``path`` in a temporary file without a name.

    Args:
        content: what to read them from, if not the whole file is compressed.

    Raises:
        VolumeError: it cannot be unpacked, has fewer, or there are more than are unpacked while reading.
    """
    if needed > _MOST_UNPACKED:
        packing = packing_of(path)
        unpack = shell(*packing.unpack.split(), path) if packing else "save it without compression"
        raise VolumeError(
            f"{path} holds {needed:,} bytes once unpacked, more than the {_MOST_UNPACKED:,} that "
            f"are unpacked while reading; unpack it first: {unpack}"
        )
    missing = needed
    with ExitStack() as kept:
        file = kept.enter_context(tempfile.TemporaryFile())
        try:
            with content or opened(path) as stream:
                while missing and (part := stream.read(min(missing, _UNPACKED_AT_ONCE))):
                    file.write(part)
                    missing -= len(part)
            file.flush()
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise VolumeError(f"{path} cannot be unpacked: {error}; copy it again, or unpack it yourself") from error
        if missing:
            raise VolumeError(
                f"{path} is truncated: its header asks for {needed} bytes once unpacked, it has {needed - missing}; "
                "copy it again"
            )
        kept.pop_all()
    return file


def suffix_inside(path: Path) -> str:
    """Return the suffix of a file's name in small letters, without that of its compression: .mrc of a.MRC.gz."""
    packed = {suffix.lower() for packing in PACKINGS for suffix in packing.suffixes}
    name = Path(path.stem) if path.suffix.lower() in packed else path
    return name.suffix.lower()

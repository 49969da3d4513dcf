"""The location of an input: a path or a URL, and the place inside a file, as in "file.h5:/place"."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from emsr_fast.errors import UsageError, VolumeError

_WITH_PARTS = r"czi|dm3|dm4|emd|h5|hdf5|hdf|ims|mat|n5|precomputed|tiff?|zarr"
RAW_KEY = "raw="  # before the description of a file without a header, in the place of a key
_PLACE = re.compile(rf"(.+\.(?:{_WITH_PARTS})):/*(.*)", re.IGNORECASE | re.DOTALL)
_RAW_PLACE = re.compile(rf"(.+):/*({RAW_KEY}[^/]*)", re.DOTALL)
# pathlib makes one slash of two
_URL = re.compile(r"(s3|gs|https?):/+(?=[^/])", re.IGNORECASE)


class RemotePath(PurePosixPath):
    """The URL of a volume on s3, gs or http, with a path's names and parents; its text is the URL."""

    def __str__(self) -> str:
        return _URL.sub(lambda found: f"{found[1].lower()}://", super().__str__(), count=1)


def is_remote(path: str | PurePosixPath | Path) -> bool:
    """Return whether ``path`` is a URL: s3://, gs://, http:// or https://."""
    return _URL.match(str(path)) is not None


def within(path: Path) -> tuple[Path, str | None]:
    """Return the file and the place inside it, for "file.h5:/place"; None if ``path`` names no place.

    The place inside a file without a header is the description of its pixels: "file.raw:/raw=100x2048x2048:uint16".
    """
    match = None if path.exists() else _RAW_PLACE.fullmatch(str(path)) or _PLACE.fullmatch(str(path))
    return (Path(match[1]), match[2]) if match else (path, None)


def checked_key(key: str | None, inside: str | None, path: str | Path) -> str | None:
    """Return the image asked for, by ``key`` or after the file's name, without slashes around it.

    Raises:
        UsageError: both are given.
        VolumeError: it leads out of the file.
    """
    if key is not None and inside:
        raise UsageError(f"{path} names an image and so does `key={key}`; give one of them")
    named = key if key is not None else inside
    if named is None:
        return None
    if ".." in re.split(r"[/\\]", named):
        raise VolumeError(f"key {named!r} leads out of {path}; name something inside it")
    return named.strip("/") or None

"""Volume formats, one file each, all registered in ``FORMATS``; their libraries load on first use."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from emsr_fast.errors import UsageError, VolumeError

if TYPE_CHECKING:
    from emsr_fast.volume.formats.base import SourceVolume, TargetSpec, TargetVolume

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
IMAGE_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
_PLACE = re.compile(r"(.+\.(?:h5|hdf5|hdf)):/*(.*)", re.IGNORECASE | re.DOTALL)
_ZARR_MARKS = ("zarr.json", ".zgroup", ".zarray", ".zattrs")


def _is_zarr(path: Path) -> bool:
    return path.is_dir() and any((path / mark).exists() for mark in _ZARR_MARKS)


def _is_hdf5(path: Path) -> bool:
    return begins_with(within(path)[0], (b"\x89HDF\r\n\x1a\n",))


def within(path: Path) -> tuple[Path, str | None]:
    """Return the file and the place inside it that "file.h5:/place" names; None where no place is named."""
    match = None if path.exists() else _PLACE.fullmatch(str(path))
    return (Path(match[1]), match[2]) if match else (path, None)


def begins_with(path: Path, magics: tuple[bytes, ...]) -> bool:
    """Return whether ``path`` is a file whose first bytes are one of ``magics``."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(16).startswith(magics)


@dataclass(frozen=True)
class Format:
    """One format: how to tell it, and the modules of this package that read and write it."""

    name: str
    recognises: Callable[[Path], bool]  # of an existing path
    reader: str  # module with open_source(path)
    writer: str | None = None  # module with create_target(path, spec, overwrite=...)
    suffixes: tuple[str, ...] = ()  # of outputs; the first is the one to advise


# in the order in which they are tried on an input
FORMATS = (
    Format("OME-Zarr", _is_zarr, "ome_zarr", "ome_zarr_write", (".ome.zarr", ".zarr")),
    Format(
        "TIFF",
        lambda path: begins_with(path, TIFF_MAGIC),
        "tiff",
        "tiff_write",
        (".ome.tif", ".ome.tiff", ".tif", ".tiff"),
    ),
    Format("HDF5", _is_hdf5, "hdf5"),
    Format("images", lambda path: path.is_dir() or begins_with(path, IMAGE_MAGIC), "images"),
)

READABLE = "TIFF stacks, PNG and JPEG images, folders of these, OME-Zarr 0.5, HDF5 (file.h5:/path)"


def open_source(path: str | Path) -> SourceVolume:
    """Return the volume at ``path``, opened for reading; the format is told by content, not by name.

    Raises:
        VolumeError: missing, unreadable, truncated, or not one grey stack.
    """
    path = Path(path)
    try:
        container, _ = within(path)
        if not container.exists():
            raise VolumeError(f"{container} does not exist; check the path")
        if container.is_file() and container.stat().st_size == 0:
            raise VolumeError(f"{container} is empty (0 bytes); copy or export it again")
        if not container.is_file() and not container.is_dir():
            raise VolumeError(f"{container} is neither a file nor a folder; give {READABLE}")
        found = next((known for known in FORMATS if known.recognises(path)), None)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        reason = error.strerror if isinstance(error, OSError) else error
        raise VolumeError(f"{path} cannot be read: {reason}; check the path and its permissions") from error
    if found is None:
        raise VolumeError(f"{path} is not an image this version reads; give {READABLE}")
    source: SourceVolume = _module(found.reader).open_source(path)
    return source


def output_format(path: str | Path) -> Format:
    """Return the format that the suffix of an output path asks for.

    Raises:
        UsageError: no format is written under that suffix.
    """
    name = os.path.basename(os.path.abspath(path)).lower()
    for known in FORMATS:
        if any(name.endswith(suffix) and name != suffix for suffix in known.suffixes):
            return known
    known_suffixes = ", ".join(suffix for known in FORMATS for suffix in known.suffixes)
    raise UsageError(f"output {str(path)!r} has no suffix this version writes; use one of {known_suffixes}")


def create_target(path: str | Path, spec: TargetSpec, *, overwrite: bool = False) -> TargetVolume:
    """Return a new volume under a temporary name beside ``path``, in the format of its suffix.

    Raises:
        UsageError: no format is written under that suffix.
        VolumeError: the place is not writable, taken (without ``overwrite``), or too small.
    """
    writer = output_format(path).writer
    assert writer is not None  # only formats with a writer have output suffixes
    target: TargetVolume = _module(writer).create_target(Path(path), spec, overwrite=overwrite)
    return target


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"emsr_fast.volume.formats.{name}")

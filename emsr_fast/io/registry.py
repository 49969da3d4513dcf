"""Volume formats, one file each, all registered in ``FORMATS``; their libraries load on first use."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from emsr_fast.errors import UsageError, VolumeError
from emsr_fast.io.locations import RemotePath, checked_key, is_remote, within
from emsr_fast.io.readers.parts.files import check_readable
from emsr_fast.io.readers.parts.mrc_header import MRC_SUFFIXES, is_mrc
from emsr_fast.io.readers.parts.packed import packing_of
from emsr_fast.io.readers.parts.unread import kind_of
from emsr_fast.io.readers.parts.zarr_tree import is_zarr

__all__ = [
    "FORMATS",
    "Format",
    "create_target",
    "is_volume_folder",
    "open_source",
    "output_format",
    "stored_dtype",
    "within",
]

if TYPE_CHECKING:
    from emsr_fast.io.volume import SourceVolume, TargetSpec, TargetVolume

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PNG_MAGIC, JPEG_MAGIC = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
MATLAB_MAGIC = (b"MATLAB 5.0 MAT-file", b"MATLAB 7.3 MAT-file")


def _is_n5(path: Path) -> bool:
    if (path / "attributes.json").is_file():
        return True
    # a copy of a part may lack it
    return path.suffix.lower() == ".n5" and path.is_dir() and next(path.glob("**/attributes.json"), None) is not None


def _is_precomputed(path: Path) -> bool:
    return (path / "info").is_file() and b"scales" in _first_bytes(path / "info", 2**16)


def _is_hdf5(path: Path) -> bool:
    # the format allows a header of the user's own before it
    return path.is_file() and any(_first_bytes(path, 8, offset) == HDF5_MAGIC for offset in (0, 512, 1024, 2048))


def _first_bytes(path: Path, count: int, offset: int = 0) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(count)


def is_volume_folder(path: Path) -> bool:
    """Return whether the folder ``path`` is one volume: Zarr, N5 or precomputed, not a folder of images."""
    return is_zarr(path) or _is_n5(path) or _is_precomputed(path)


def is_volume_file(path: Path) -> bool:
    """Return whether the file ``path`` is a whole volume by itself: HDF5, MATLAB or MRC."""
    if not path.is_file():
        return False
    return _is_hdf5(path) or begins_with(path, MATLAB_MAGIC) or is_mrc(path)


def begins_with(path: Path, magics: tuple[bytes, ...]) -> bool:
    """Return whether ``path`` is a file whose first bytes are one of ``magics``."""
    if not path.is_file():
        return False
    return _first_bytes(path, 32).startswith(magics)


@dataclass(frozen=True)
class Format:
    """One format: how to tell it, and the modules of this package that read and write it."""

    name: str
    recognises: Callable[[Path], bool]  # of an existing path
    reader: str  # module with open_source(path, key, axes)
    writer: str | None = None  # module with create_target(path, spec, overwrite=...)
    suffixes: tuple[str, ...] = ()  # of outputs; the first is the one to advise
    stored_as: Mapping[str, str] = field(
        default_factory=dict
    )  # dtypes it has no place for, and what holds their values


# in the order in which they are tried on an input
FORMATS = (
    Format("OME-Zarr", is_zarr, "readers.zarr", "writers.ome_zarr", (".ome.zarr", ".zarr")),
    Format("N5", _is_n5, "readers.tensorstore"),
    Format("precomputed", _is_precomputed, "readers.tensorstore"),
    Format(
        "TIFF",
        lambda path: begins_with(path, TIFF_MAGIC),
        "readers.tiff.source",
        "writers.tiff",
        (".ome.tif", ".ome.tiff", ".tif", ".tiff"),
    ),
    Format("MATLAB", lambda path: begins_with(path, MATLAB_MAGIC), "readers.matlab"),
    Format("HDF5", _is_hdf5, "readers.hdf5", "writers.hdf5", (".h5", ".hdf5")),
    Format("MRC", is_mrc, "readers.mrc", "writers.mrc", (".mrc",), {"uint8": "uint16"}),
    Format("images", lambda path: path.is_dir() or begins_with(path, (PNG_MAGIC, JPEG_MAGIC)), "readers.images"),
)

READABLE = (
    "TIFF stacks, PNG and JPEG images, folders of these, OME-Zarr and Zarr, HDF5, MATLAB, MRC, N5 or Neuroglancer "
    "precomputed"
)


def open_source(path: str | Path, key: str | None = None, axes: str | None = None) -> SourceVolume:
    """Return the volume at ``path``, opened for reading; the format is told by content, not by name.

    Args:
        path: a file, a folder, or an s3, gs or http URL of a Zarr, N5 or precomputed volume; "file.h5:/key" names the
            image in it too.
        key: which image of a file with several: a dataset, variable, array, multiscale level or series.
        axes: what the stored axes are, slowest first, such as "ZYX" or "CZYX" (MATLAB: as ``size`` gives them);
            as the file says if None.

    Raises:
        UsageError: ``axes`` does not fit, or the image is named twice.
        VolumeError: missing, unreadable, truncated, several images to choose from, or not one grey stack.
    """
    if axes is not None:
        from emsr_fast.io.axes import check_axes

        axes = check_axes(axes)
    container, inside = within(Path(path))
    key = checked_key(key, inside, path)
    remote = is_remote(container)
    reader = "readers.tensorstore" if remote else _reader(container)
    source: SourceVolume = _module(reader).open_source(RemotePath(container) if remote else container, key, axes)
    return source


def _reader(path: Path) -> str:
    """Return the module that reads what lies at ``path``."""
    try:
        if not path.is_dir():
            check_readable(path)
        found = next((known for known in FORMATS if known.recognises(path)), None)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        reason = error.strerror if isinstance(error, OSError) else error
        raise VolumeError(f"{path} cannot be read: {reason}; check the path and its permissions") from error
    if found is None:
        if packing := packing_of(path):
            raise VolumeError(
                f"{path} is compressed with {packing.name}, of which only MRC is read in place; "
                f"unpack it first: {packing.unpack} {path}"
            )
        if promised := _promised(path):
            raise VolumeError(f"{path} ends in {path.suffix}, but its content is not {promised}; give {READABLE}")
        if path.is_file() and (kind := kind_of(path)):
            raise VolumeError(f"{path} is {kind}, which is not read: convert it to TIFF; or give {READABLE}")
        raise VolumeError(f"{path} is not an image this version reads; give {READABLE}")
    return found.reader


def _promised(path: Path) -> str | None:
    """Return the format that a file's name promises, if it is one that is read."""
    suffix = path.suffix.lower()
    named = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".mat": "MATLAB"}
    named |= dict.fromkeys(MRC_SUFFIXES, "MRC (no mark MAP, and no size, mode and axes that fit the file)")
    named |= {own: kind.name for kind in FORMATS for own in kind.suffixes if kind.name in ("TIFF", "HDF5")}
    return named.get(suffix) if path.is_file() else None


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


def stored_dtype(path: str | Path, dtype: str) -> str:
    """Return the name of the dtype in which the output ``path`` holds pixels of ``dtype``, with the same values."""
    return output_format(path).stored_as.get(dtype, dtype)


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
    return importlib.import_module(f"emsr_fast.io.{name}")

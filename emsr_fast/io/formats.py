"""The volume formats: how to recognise each by its content, its suffixes, and the modules that read and write it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from emsr_fast.errors import UsageError
from emsr_fast.io.readers.parts.mrc_header import is_mrc
from emsr_fast.io.readers.parts.nifti_mark import is_nifti
from emsr_fast.io.readers.parts.zarr_tree import is_zarr

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PNG_MAGIC, JPEG_MAGIC = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
DM_MAGIC = (b"\0\0\0\3", b"\0\0\0\4")
CZI_MAGIC = b"ZISRAWFILE"
JEISS_MAGIC = (3555587570).to_bytes(4, "big")
ND2_MAGIC = (0x0ABECEDA).to_bytes(4, "little")
NRRD_MAGIC = b"NRRD000"
SER_MAGIC = b"II\x97\x01"  # byte order, and what TIA calls its series
MATLAB_MAGIC = (b"MATLAB 5.0 MAT-file", b"MATLAB 7.3 MAT-file")


def _is_n5(path: Path) -> bool:
    if (path / "attributes.json").is_file():
        return True
    # a copy of a part may lack it
    return path.suffix.lower() == ".n5" and path.is_dir() and next(path.glob("**/attributes.json"), None) is not None


def _is_webknossos(path: Path) -> bool:
    # its layers may be Zarr or N5
    return (path / "datasource-properties.json").is_file()


def _is_precomputed(path: Path) -> bool:
    info = path / "info"
    if not info.is_file():
        # a pipe: the reader says so
        return path.suffix.lower() == ".precomputed" and info.exists()
    return b"scales" in _first_bytes(info, 2**16)


def _is_hdf5(path: Path) -> bool:
    # the format allows a header of the user's own before it
    return path.is_file() and any(_first_bytes(path, 8, offset) == HDF5_MAGIC for offset in (0, 512, 1024, 2048))


def _first_bytes(path: Path, count: int, offset: int = 0) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(count)


def is_volume_folder(path: Path) -> bool:
    """Return whether the folder ``path`` is one volume: WEBKNOSSOS, Zarr, N5 or precomputed, not a folder of images."""
    return _is_webknossos(path) or is_zarr(path) or _is_n5(path) or _is_precomputed(path)


def is_volume_file(path: Path) -> bool:
    """Return whether the file ``path`` is a whole volume by itself: HDF5, MATLAB, MRC, CZI, ND2, NIfTI or NRRD."""
    if not path.is_file():
        return False
    return (
        _is_hdf5(path)
        or begins_with(path, (*MATLAB_MAGIC, CZI_MAGIC, ND2_MAGIC, NRRD_MAGIC))
        or is_mrc(path)
        or is_nifti(path)
    )


def begins_with(path: Path, magics: tuple[bytes, ...]) -> bool:
    """Return whether ``path`` is a file whose first bytes are one of ``magics``."""
    if not path.is_file():
        return False
    return _first_bytes(path, 32).startswith(magics)


@dataclass(frozen=True)
class Format:
    """One format: how to recognise it, and the modules that read and write it."""

    name: str
    recognises: Callable[[Path], bool]  # of an existing path
    reader: str  # module with open_source(path, key, asked)
    writer: str | None = None  # module with create_target(path, spec, overwrite=...)
    suffixes: tuple[str, ...] = ()  # of outputs; the first is the one to advise
    stored_as: Mapping[str, str] = field(
        default_factory=dict
    )  # dtypes it has no place for, and what holds their values


# has no header: only the user knows it
RAW = Format("raw binary", lambda path: False, "readers.raw")

# in the order in which they are tried on an input
FORMATS = (
    Format("WEBKNOSSOS", _is_webknossos, "readers.webknossos"),
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
    Format("DigitalMicrograph", lambda path: begins_with(path, DM_MAGIC), "readers.dm"),
    Format("SER", lambda path: begins_with(path, (SER_MAGIC,)), "readers.ser"),
    Format("CZI", lambda path: begins_with(path, (CZI_MAGIC,)), "readers.czi"),
    Format("Jeiss", lambda path: begins_with(path, (JEISS_MAGIC,)), "readers.jeiss"),
    Format("ND2", lambda path: begins_with(path, (ND2_MAGIC,)), "readers.nd2"),
    Format("NRRD", lambda path: begins_with(path, (NRRD_MAGIC,)), "readers.nrrd"),
    Format("NIfTI", is_nifti, "readers.nifti"),
    Format("MRC", is_mrc, "readers.mrc", "writers.mrc", (".mrc",), {"uint8": "uint16"}),
    Format("images", lambda path: path.is_dir() or begins_with(path, (PNG_MAGIC, JPEG_MAGIC)), "readers.images"),
    RAW,
)


def output_format(path: str | Path) -> Format:
    """Return the format of an output, by its suffix.

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
    """Return the name of the dtype in which the output ``path`` stores pixels of ``dtype``; the values are the same."""
    return output_format(path).stored_as.get(dtype, dtype)

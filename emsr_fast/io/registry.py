"""Opens and creates volumes: finds the format of a path, and loads its module on first use."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from emsr_fast.errors import UsageError, VolumeError
from emsr_fast.io.formats import FORMATS, RAW, output_format
from emsr_fast.io.locations import RAW_KEY, RemotePath, checked_key, is_remote, within
from emsr_fast.io.readers.parts.files import check_readable
from emsr_fast.io.readers.parts.mrc_header import MRC_SUFFIXES
from emsr_fast.io.readers.parts.packed import packing_of
from emsr_fast.io.readers.parts.unread import kind_of
from emsr_fast.wording import shell

if TYPE_CHECKING:
    from emsr_fast.io.volume import SourceVolume, TargetSpec, TargetVolume

READABLE = (
    "TIFF stacks, PNG and JPEG images, folders of these, OME-Zarr and Zarr, HDF5, MATLAB, MRC, DM3, DM4, SER, EMD, "
    "Jeiss dat, WEBKNOSSOS, CZI, ND2, NIfTI, NRRD, N5 or Neuroglancer precomputed"
)


def open_source(
    path: str | Path,
    key: str | None = None,
    axes: str | None = None,
    channel: int | None = None,
    keep_data_bar: bool = False,
) -> SourceVolume:
    """Return the volume at ``path``, opened for reading; its content decides the format, not its name.

    Args:
        path: a file, a folder, or an s3, gs or http URL of a Zarr, N5 or precomputed volume; "file.h5:/key" names the
            image in it, too.
        key: which image of a file with several: a dataset, variable, array, multiscale level or series; or how the
            pixels of a file without a header are stored: "raw=100x2048x2048:uint16".
        axes: the names of the stored axes, slowest first, such as "ZYX" or "CZYX" (MATLAB: in the order of ``size``);
            if None, those in the file.
        channel: which of several channels along axis C, counted from 0.
        keep_data_bar: whether to read the printed strip below a microscope's image, too; by default it is left out,
            where the file states the image's height.

    Raises:
        NoChannelsError: ``channel`` is given, and there is no axis C.
        UsageError: ``axes`` or ``channel`` does not fit, or the image is named twice.
        VolumeError: it is missing, unreadable or truncated, has several images and no ``key``, or is no grey stack.
    """
    from emsr_fast.io.axes import Asked, check_axes

    asked = Asked(None if axes is None else check_axes(axes), channel, keep_data_bar)
    container, inside = within(Path(path))
    key = checked_key(key, inside, path)
    remote = is_remote(container)
    described = key is not None and key.startswith(RAW_KEY)
    reader = "readers.tensorstore" if remote else _reader(container, described=described)
    source: SourceVolume = _module(reader).open_source(RemotePath(container) if remote else container, key, asked)
    return source


class ChannelOf:
    """Opens several volumes, of those with channels the one asked for; others as they are."""

    def __init__(self, channel: int | None, keep_data_bar: bool = False) -> None:
        self._channel, self._used, self._bar = channel, False, keep_data_bar
        self._lacking: UsageError | None = None

    def open(self, path: str | Path) -> SourceVolume:
        """Return the volume at ``path``, see ``open_source``."""
        from emsr_fast.io.axes import NoChannelsError

        try:
            source = open_source(path, channel=self._channel, keep_data_bar=self._bar)
        except NoChannelsError as error:
            self._lacking = error
            return open_source(path, keep_data_bar=self._bar)
        self._used = True
        return source

    def check_used(self) -> None:
        """Raise UsageError if no volume has channels, and one is asked for."""
        if self._lacking is not None and not self._used:
            raise self._lacking


def _reader(path: Path, *, described: bool = False) -> str:
    """Return the module that reads the format of ``path``; ``described`` pixels have none."""
    try:
        if not path.is_dir():
            check_readable(path)
            if described:
                return RAW.reader
        found = next((known for known in FORMATS if known.recognises(path)), None)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        reason = error.strerror if isinstance(error, OSError) else error
        raise VolumeError(f"{path} cannot be read: {reason}; check the path and its permissions") from error
    if found is None:
        if packing := packing_of(path):
            raise VolumeError(
                f"{path} is compressed with {packing.name}, of which only MRC is read in place; "
                f"unpack it first: {shell(*packing.unpack.split(), path)}"
            )
        if path.is_file() and path.suffix.lower() == ".emi":
            raise VolumeError(
                f"{path} describes a series of TIA and is not read; give the .ser file beside it, which holds it"
            )
        if promised := _promised(path):
            raise VolumeError(f"{path} ends in {path.suffix}, but its content is not {promised}; give {READABLE}")
        if path.is_file() and (kind := kind_of(path)):
            raise VolumeError(f"{path} is {kind}, which is not read: convert it to TIFF; or give {READABLE}")
        raise VolumeError(
            f"{path} is not an image this version reads; give {READABLE}, or describe raw pixels with `raw`"
        )
    return found.reader


def _promised(path: Path) -> str | None:
    """Return the format that a file's name promises, if it is one that is read."""
    suffix = path.suffix.lower()
    named = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".mat": "MATLAB"}
    named |= {".dm3": "DigitalMicrograph", ".dm4": "DigitalMicrograph", ".ser": "SER"}
    named |= {".czi": "CZI", ".nd2": "ND2", ".nii": "NIfTI", ".nrrd": "NRRD", ".nhdr": "NRRD"}
    named |= dict.fromkeys(MRC_SUFFIXES, "MRC (no mark MAP, and no size, mode and axes that fit the file)")
    named |= {own: kind.name for kind in FORMATS for own in kind.suffixes if kind.name in ("TIFF", "HDF5")}
    return named.get(suffix) if path.is_file() else None


def create_target(path: str | Path, spec: TargetSpec, *, overwrite: bool = False) -> TargetVolume:
    """Return a new volume under a temporary name beside ``path``, in the format of its suffix.

    Raises:
        UsageError: no format is written under that suffix.
        VolumeError: the path is not writable or is taken (without ``overwrite``), or the disk is full.
    """
    writer = output_format(path).writer
    assert writer is not None  # only formats with a writer have output suffixes
    target: TargetVolume = _module(writer).create_target(Path(path), spec, overwrite=overwrite)
    return target


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"emsr_fast.io.{name}")

"""Where an output goes: what is checked before any work, and errors of the disk in words."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emsr_fast.errors import UsageError, VolumeError
from emsr_fast.io.registry import Format, output_format
from emsr_fast.publish import Staging, refuse_special


def printable(name: str) -> str:
    """Return a file's name as text that metadata can hold, whatever bytes the file system has."""
    return os.fsencode(name).decode("utf-8", "replace")


_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}


def check_destination(path: str | Path, *, overwrite: bool, source: str | Path | None = None) -> Path:
    """Return the absolute final path of an output that may be written there.

    Args:
        path: the output asked for; its suffix chooses the format.
        overwrite: whether an output of the same format may be replaced.
        source: the input, which the output must neither replace, nor contain, nor lie in.

    Raises:
        UsageError: the suffix names no format, or input and output overlap.
        VolumeError: the folder is missing or unwritable, or the place is taken.
    """
    kind = output_format(path)
    final = resolved(path)
    try:
        if source is not None:
            check_apart(Path(source).resolve(), final)
        check_folder(final.parent)
        _check_vacant(final, kind, overwrite=overwrite)
    except (OSError, RuntimeError) as error:
        raise _unwritable(path, error) from error
    return final


def resolved(path: str | Path) -> Path:
    """Return the absolute path of an output, links followed.

    Raises:
        VolumeError: they lead nowhere.
    """
    try:
        return Path(path).resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        raise _unwritable(path, error) from error


def _unwritable(path: str | Path, error: Exception) -> VolumeError:
    reason = error.strerror if isinstance(error, OSError) else error
    return VolumeError(f"output {path} cannot be written: {reason}; choose another place")


def check_apart(source: Path, final: Path) -> None:
    """Raise UsageError where writing ``final`` would change the input ``source``; both are absolute."""
    same = source.exists() and final.exists() and final.samefile(source)
    if same or final == source:
        raise UsageError(f"output {final} is the input itself; choose another name")
    if final.is_relative_to(source):
        raise UsageError(f"output {final} lies inside the input {source}; choose another folder")
    if source.is_relative_to(final):
        raise UsageError(f"output {final} contains the input {source}; choose another folder")


def check_folder(folder: Path) -> None:
    """Raise VolumeError unless files can be made in ``folder``."""
    if not folder.exists():
        raise VolumeError(f"output folder {folder} does not exist; create it first: mkdir -p '{folder}'")
    if not folder.is_dir():
        raise VolumeError(f"output folder {folder} is a file, not a folder; choose another place")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise VolumeError(f"output folder {folder} is not writable; choose another place or mend its permissions")


def _check_vacant(final: Path, kind: Format, *, overwrite: bool) -> None:
    if not final.exists():
        return
    refuse_special(final)
    if not overwrite:
        raise VolumeError(f"output {final} exists; choose another name or give `overwrite=True`")
    # a typing error must not cost a folder of other data
    replaceable = kind.recognises(final) or (final.is_file() and final.stat().st_size == 0)
    if not replaceable:
        what = "folder" if final.is_dir() else "file"
        raise VolumeError(f"output {final} is a {what} that is no {kind.name}: not overwritten; choose another name")


def volume_error(error: OSError, path: Path) -> VolumeError:
    """Return the one-line error for a failure of the system while ``path`` was being written."""
    if error.errno in _FULL:
        return VolumeError(
            f"output {path} cannot be written: {_FULL[error.errno]} "
            f"({_free_bytes(path.parent) / 1e6:.1f} MB free); free space or choose another folder"
        )
    if error.errno == errno.EFBIG:
        return VolumeError(
            f"output {path} cannot be written: larger than this system allows a file to be "
            "(ulimit -f, or the file system's limit); write .ome.zarr, which is many small files, or go elsewhere"
        )
    reason = error.strerror or str(error)
    return VolumeError(f"output {path} cannot be written: {reason}; check the disk and the folder's permissions")


def _free_bytes(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def check_space(path: Path, needed: int) -> None:
    """Raise VolumeError where ``needed`` bytes exceed what is free in the folder of ``path``."""
    free = _free_bytes(path.parent)
    if needed > free:
        raise VolumeError(
            f"output {path} needs {needed / 1e6:.1f} MB and its disk has {free / 1e6:.1f} MB free; "
            "free space or choose another folder"
        )


@contextmanager
def system_errors(path: Path) -> Iterator[None]:
    """Turn the system's errors while writing ``path`` into VolumeError."""
    try:
        yield
    except OSError as error:
        raise volume_error(error, path) from error


def staging(path: Path, *, overwrite: bool, folder: bool = False) -> Staging:
    """Return where an output at ``path`` is made; it takes that name at the end. Its writer calls fsync.

    Args:
        folder: whether it is a folder.

    Raises:
        UsageError, VolumeError: see ``check_destination``.
    """

    def check(final: Path) -> None:
        check_destination(final, overwrite=overwrite)

    with system_errors(path):
        return Staging(check_destination(path, overwrite=overwrite), check, folder=folder, durable=True)

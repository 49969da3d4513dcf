"""The path of an output: checked before any work; and errors of the disk in words."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from emsr_fast.errors import UsageError, VolumeError
from emsr_fast.io.formats import output_format
from emsr_fast.publish import Staging, refuse_special
from emsr_fast.wording import shell


def printable(name: str) -> str:
    """Return a file's name, of any bytes, as text that metadata can hold."""
    return os.fsencode(name).decode("utf-8", "replace")


_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}


def check_destination(path: str | Path, *, overwrite: bool, source: str | Path | None = None) -> Path:
    """Return the absolute final path of a volume, after checking that it may be written.

    Args:
        path: the output asked for; its suffix chooses the format.
        overwrite: whether an output of the same format may be replaced.
        source: the input, see ``check_output``.

    Raises:
        UsageError: the suffix names no format, or input and output overlap.
        VolumeError: the folder is missing or unwritable, or the name is taken.
    """
    kind = output_format(path)
    inputs = [] if source is None else [source]
    return check_output(path, f"in {kind.name} format", kind.recognises, overwrite=overwrite, inputs=inputs)


def check_output(
    path: str | Path,
    what: str,
    is_ours: Callable[[Path], bool],
    *,
    overwrite: bool,
    inputs: Iterable[str | Path] = (),
    folder: bool = False,
) -> Path:
    """Return the absolute final path of an output, after checking that the name is free or may be replaced.

    Every command checks this before the work, and again when the output gets its name.

    Args:
        what: the kind of output, for messages, such as "a PNG".
        is_ours: whether an existing path is such a file or folder.
        overwrite: whether to replace it then. Files and folders of other kinds are never replaced, but for an empty
            file.
        inputs: files and folders; the output must not replace them, contain them, or lie in them.
        folder: whether the output is a folder; an empty one counts as free.

    Raises:
        UsageError: output and an input overlap.
        VolumeError: the folder is missing or unwritable, or the name is taken.
    """
    final = resolved(path)
    try:
        for source in inputs:
            check_apart(Path(source).resolve(), final)
        check_folder(final.parent)
        _check_vacant(final, what, is_ours, overwrite=overwrite, folder=folder)
    except (OSError, RuntimeError) as error:
        raise _unwritable(path, error) from error
    return final


def resolved(path: str | Path) -> Path:
    """Return the absolute path of an output, links followed.

    Raises:
        VolumeError: a link leads nowhere.
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
        raise VolumeError(f"output folder {folder} does not exist; create it first: {shell('mkdir', '-p', folder)}")
    if not folder.is_dir():
        raise VolumeError(f"output folder {folder} is a file, not a folder; choose another place")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise VolumeError(f"output folder {folder} is not writable; choose another place or change its permissions")


def _check_vacant(final: Path, what: str, is_ours: Callable[[Path], bool], *, overwrite: bool, folder: bool) -> None:
    if not final.exists():
        return
    refuse_special(final)
    if final.is_dir():
        kind, empty = "folder", not any(final.iterdir())
        if empty and folder:
            return
    else:
        kind, empty = "file", final.stat().st_size == 0
    # a typing error must not cost a file or folder of other data
    if not is_ours(final) and not (empty and kind == "file" and not folder):
        other = f"a {kind} that is not {what}"
        raise VolumeError(f"output {final} exists and is {other}: not overwritten; choose another name")
    if not overwrite:
        raise VolumeError(f"output {final} exists; choose another name or give `overwrite=True`")


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
            "(ulimit -f, or the file system's limit); write .ome.zarr, which is many small files, or to another disk"
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
    """Return the hidden place where an output is written; it becomes ``path`` at the end. Its writer calls fsync.

    Args:
        folder: whether it is a folder.

    Raises:
        UsageError, VolumeError: see ``check_destination``.
    """

    def check(final: Path) -> None:
        check_destination(final, overwrite=overwrite)

    with system_errors(path):
        return Staging(check_destination(path, overwrite=overwrite), check, folder=folder, durable=True)

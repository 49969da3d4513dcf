"""Checks of files before their content is read."""

from __future__ import annotations

import os
from pathlib import Path, PurePath

from emsr_fast.errors import VolumeError
from emsr_fast.reading import read_regular
from emsr_fast.wording import shortened

_LONGEST_NAMED = 400  # characters of a part's path
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


class DamagedError(VolumeError):
    """The file of an image is missing, cut or cannot be decoded; in a stack, this slice fails."""


class AdvisedError(Exception):
    """A library's error, shortened, and what to do about it; a message puts before it what was read."""


def check_readable(path: Path) -> None:
    """Raise DamagedError if the bytes of a file are not there.

    Raises:
        DamagedError: ``path`` is missing, a broken link, no file, empty, a Git LFS pointer, or may not be read.
    """
    try:
        if not path.exists():
            if path.is_symlink():
                raise DamagedError(
                    f"{path} is a broken link to {os.readlink(path)}; copy that file, or correct the link"
                )
            raise DamagedError(f"{path} does not exist; check the path")
        # before it is opened: that of a pipe would wait for ever
        if not path.is_file():
            raise DamagedError(f"{path} is neither a file nor a folder; check the path")
        with path.open("rb") as file:
            start = file.read(len(_LFS_POINTER))
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        reason = error.strerror if isinstance(error, OSError) else error
        raise DamagedError(f"{path} cannot be read: {reason}; check the path and its permissions") from error
    if not start:
        raise DamagedError(f"{path} is empty (0 bytes); copy or export it again")
    if start == _LFS_POINTER:
        raise DamagedError(f"{path} is a Git LFS pointer, not the image itself; fetch it with: git lfs pull")


def check_inside(folder: Path, place: Path, path: PurePath) -> None:
    """Raise VolumeError if a part that a volume names lies outside the volume: it must not make us read other files.

    Args:
        folder: of the volume.
        place: the part, there or not.
        path: of the volume, for messages.

    Raises:
        VolumeError: ``place`` is outside ``folder``, by its name or through a link.
    """
    real = os.path.realpath(place)
    if Path(real).is_relative_to(os.path.realpath(folder)):
        return
    named = shortened(str(place), _LONGEST_NAMED)
    if os.path.abspath(place) != real:
        raise VolumeError(
            f"{named} is a link that leads out of the volume, to {real}; copy the volume without links (cp -rL)"
        )
    raise VolumeError(f"{path} names {named} as a part of it, which lies in another folder; move both into one")


def read_part(folder: Path, place: Path, path: PurePath, most: int | None = None) -> bytes | None:
    """Return the content of ``place``, a part of a volume; None if there is none.

    Args:
        folder: the folder that it must lie in, with links followed.
        place: the file.
        path: of the volume, for messages.
        most: bytes.

    Raises:
        VolumeError: it lies elsewhere, is no file, cannot be read, or is larger.
    """
    check_inside(folder, place, path)
    try:
        return read_regular(place, os.stat(place).st_size if most is None else most)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise VolumeError(f"{place} cannot be read: {error.strerror}; check how {path} was written") from error


def check_regular(place: Path, path: PurePath) -> None:
    """Raise VolumeError if a part of the volume ``path`` is no file: opening a pipe would wait for ever.

    Raises:
        VolumeError: ``place``, which exists, is a pipe, device, socket or folder.
    """
    if not place.is_file():
        raise VolumeError(f"{place}, a part of {path}, is a pipe, device or folder, not a file; copy the volume again")

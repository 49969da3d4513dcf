"""Files before their content is looked at: what keeps one from being read at all."""

from __future__ import annotations

import os
from pathlib import Path, PurePath

from emsr_fast.errors import VolumeError
from emsr_fast.reading import read_regular

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


class DamagedError(VolumeError):
    """What is stored of an image is missing, cut or not decodable; of a stack it is one slice that fails."""


class AdvisedError(Exception):
    """What a library raised, in short, and what to do about it: for messages that begin with what was read."""


def check_readable(path: Path) -> None:
    """Refuse a file whose bytes are not there.

    Raises:
        DamagedError: ``path`` is missing, a broken link, no file, empty, a Git LFS pointer, or may not be read.
    """
    try:
        if not path.exists():
            if path.is_symlink():
                raise DamagedError(f"{path} is a broken link to {os.readlink(path)}; copy that file, or mend the link")
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
    """Refuse what a volume names as a part of it and which lies elsewhere: it must not make us read other files.

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
    if os.path.abspath(place) != real:
        raise VolumeError(
            f"{place} is a link that leads out of the volume, to {real}; copy the volume without links (cp -rL)"
        )
    raise VolumeError(f"{path} names {place} as a part of it, which lies in another folder; move both into one")


def read_part(folder: Path, place: Path, path: PurePath, most: int | None = None) -> bytes | None:
    """Return what is in ``place``, a part of a volume; None where there is none.

    Args:
        folder: that it must lie in, with what a link leads to.
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
    """Refuse a part of the volume ``path`` that is no file: to open a pipe would wait for ever.

    Raises:
        VolumeError: ``place``, which exists, is a pipe, device, socket or folder.
    """
    if not place.is_file():
        raise VolumeError(f"{place}, a part of {path}, is a pipe, device or folder and no file; copy the volume again")

"""A folder that one process works in: it holds a lock there, and others are told which process that is."""

from __future__ import annotations

import fcntl
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emsr_fast.errors import VolumeError


@contextmanager
def held(path: Path, taken: str, advice: str, *, alone: bool = True, make: bool = True) -> Iterator[None]:
    """Hold the lock file ``path`` until the block ends; a kill gives it back.

    On a disk without locks nothing is held.

    Args:
        taken: what another process is doing where it has the lock, for the message: "is training in ...".
        advice: what to do then.
        alone: whether no other process may hold it; otherwise others that are not alone may.
        make: whether the file is made where it is missing.

    Raises:
        VolumeError: another process holds it, says which; or what has the name is no file.
        OSError: the file cannot be made or opened.
    """
    check_lock(path)
    while True:
        with path.open("a+" if make else "r+") as file:
            try:
                fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                who = file.readline().strip() or "it does not say which"
                raise VolumeError(f"another process {taken} ({who}); {advice}") from error
            except OSError:
                pass
            if _is_still(path, file.fileno()):
                file.truncate(0)
                file.write(f"process {os.getpid()} on {platform.node()}, since {time.strftime('%Y-%m-%d %H:%M')}\n")
                file.flush()
                yield
                return
            # its holder removed it at its end


def check_lock(path: Path) -> None:
    """Raise VolumeError if ``path`` cannot be a lock file: a folder, pipe or device has the name."""
    if path.exists() and not path.is_file():
        raise VolumeError(f"{path} is not a file, so emsr-fast did not make it: move it away, and repeat the command")


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False

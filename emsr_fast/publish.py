"""How an output gets its name: in one step, when all of it is on the disk, without replacing other data.

An output is made under a hidden name beside its final one, on the same disk:

    .NAME.partial-PID-TOKEN     being made; removed on any error and when Python exits
    .NAME.replaced-PID-TOKEN    the old output, for a moment, where the system cannot exchange two names in one step

At the end: fsync of the output; then, with signals held back, a last check of the final name, one rename, fsync of the
folder, removal of the old output. After a kill between any two of these, the final name has the whole old output or the
whole new one. Without an exchange in one step (other systems than Linux, some network disks) the old output may have
its "replaced" name: leftovers.py gives it the final name again, and removes what
killed processes left.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from emsr_fast.errors import VolumeError
from emsr_fast.leftovers import hidden, probed, remove, tidy
from emsr_fast.renaming import exchange, rename_to_free
from emsr_fast.shield import shielded_from_signals

# raises VolumeError unless the path is free or what lies there may be replaced
Check = Callable[[Path], object]

_SPECIAL = {
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFIFO: "a FIFO (named pipe)",
    stat.S_IFSOCK: "a socket",
}


def refuse_special(path: Path) -> None:
    """Raise VolumeError if ``path`` is a device, FIFO, socket or broken link, which must not be replaced."""
    try:
        kind = _SPECIAL.get(stat.S_IFMT(path.stat().st_mode))
    except FileNotFoundError:
        # to all checks the name looks free
        if path.is_symlink():
            raise VolumeError(
                f"output {path} is a broken link: not replaced; remove the link, or choose another name"
            ) from None
        return
    if kind:
        raise VolumeError(f"output {path} is {kind}, neither a file nor a folder: not replaced; choose another name")


def refuse_folder(path: Path) -> None:
    """Raise VolumeError if ``path`` is a folder: the check for files that may replace their old version."""
    if path.is_dir():
        raise VolumeError(f"output {path} is a folder, not a file: not replaced; choose another name")


class Staging:
    """A hidden file or folder beside ``final``, empty at first, that takes its name at the end.

    As a context manager it gives the hidden path. It publishes if the block ends without an error, else it discards.
    """

    def __init__(
        self, final: Path, check: Check = refuse_folder, *, folder: bool = False, durable: bool = False
    ) -> None:
        """Make the hidden file or folder, and remove what killed processes left of theirs.

        Args:
            final: the final path, links followed.
            check: called now and at the last moment.
            durable: whether its writer puts the content on the disk (fsync).

        Raises:
            VolumeError: ``final`` is special, or ``check`` refuses.
            OSError: the folder is not there or cannot be written.
        """
        self.final, self._check, self._durable = final, check, durable
        tidy(final)
        refuse_special(final)
        check(final)
        self._owner = os.getpid()
        # the process id says whose it is; the token keeps containers with equal ids apart
        self.path = hidden(final, "partial")
        with shielded_from_signals():
            self._lock = _make(self.path, folder=folder)
            self._open = True
            atexit.register(self.discard)

    def publish(self) -> None:
        """Give the file or folder its final name.

        Raises:
            VolumeError, OSError: see the function ``publish``; ``discard`` removes what was made.
        """
        publish(self.path, self.final, self._check, durable=self._durable, fate="is removed")
        self._close()

    def discard(self) -> None:
        """Remove what was made; harmless after ``publish``, when called twice, and in a forked child."""
        if not self._open or os.getpid() != self._owner:
            return
        with shielded_from_signals():
            remove(self.path)
            self._close()

    def __enter__(self) -> Path:
        return self.path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.publish()
        finally:
            self.discard()

    def _close(self) -> None:
        self._open = False
        os.close(self._lock)
        atexit.unregister(self.discard)


def _make(path: Path, *, folder: bool) -> int:
    """Make a file or folder; return a descriptor that holds its lock. One without a lock is of a killed process."""
    while True:
        path.mkdir() if folder else path.touch(exist_ok=False)
        lock = os.open(path, os.O_RDONLY)
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return lock
        os.close(lock)  # ``tidy`` held it first, and removed it


def publish(ready: Path, final: Path, check: Check, *, fate: str, durable: bool = False) -> None:
    """Give ``ready``, a file or folder on the same disk, the name ``final``; an old output is removed only then.

    Args:
        check: called at the last moment.
        fate: what happens to ``ready`` if ``check`` refuses, for the message, such as "is kept in ...".
        durable: whether the content of ``ready`` is on the disk already.

    Raises:
        VolumeError: the name was taken meanwhile.
        OSError: the disk failed; the old output keeps its name.
    """
    if not durable:
        sync(ready)
    with shielded_from_signals():
        old = _take_name(ready, final, partial(last_look, check=check, fate=fate))
        _fsync(final.parent)
        if old is not None:
            remove(old)


def last_look(final: Path, check: Check, fate: str) -> None:
    """Raise VolumeError, which says what happens to the result, unless ``final`` may be taken."""
    try:
        refuse_special(final)
        check(final)
    except VolumeError as error:
        raise VolumeError(f"{error}; it came there during the work, whose result {fate}") from error


def _take_name(ready: Path, final: Path, check: Check) -> Path | None:
    """Rename in one step; return where the old output is now, None if there is none."""
    while True:
        looked_at = _inode(final)
        check(final)
        if looked_at is None:
            # what another program puts there after the look is looked at, too
            with suppress(FileExistsError):
                if not rename_to_free(ready, final):
                    ready.rename(final)
                return None
        elif not exchange(ready, final):
            return _take_name_in_two_steps(ready, final)
        elif _inode(ready) == looked_at:
            return ready
        else:
            exchange(ready, final)  # another program was faster than the exchange: what it put there goes back


def _inode(path: Path) -> int | None:
    try:
        return path.lstat().st_ino
    except FileNotFoundError:
        return None


def _take_name_in_two_steps(ready: Path, final: Path) -> Path | None:
    if not ready.is_dir() and not final.is_dir():
        ready.replace(final)
        return None
    # a folder cannot be renamed over anything
    old = hidden(final, "replaced")
    with probed(final):  # another process must not take it for what a killed one left
        final.rename(old)
        try:
            ready.rename(final)
        except BaseException:
            old.rename(final)
            raise
    return old


def write_file(final: Path, content: bytes, check: Check = refuse_folder) -> None:
    """Write ``content`` to ``final``; a reader sees all of it, or the old content."""
    with Staging(final, check) as part:
        part.write_bytes(content)


def write_durably(path: Path, data: Any, unfinished: Path) -> None:
    """Write ``data`` to ``path`` in a work folder; after a kill or a power cut it is there whole or not at all.

    Args:
        unfinished: an existing folder of the same file system; after a kill the unfinished file is there.
    """
    part = unfinished / f"{os.getpid()}-{secrets.token_hex(6)}"
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        path.parent.mkdir(parents=True, exist_ok=True)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Put a file, or a folder with all in it, on the disk."""
    if not path.is_dir():
        _fsync(path)
        return
    for folder, _, names in os.walk(path, topdown=False):
        for name in (*names, ""):
            _fsync(Path(folder, name))


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

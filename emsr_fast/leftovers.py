"""Hidden names beside an output, and what killed processes leave under them; publish.py says what each is."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from emsr_fast.shield import shielded_from_signals

_LONGEST_STEM = 40  # characters, of which each may need four of a name's 255 bytes


def tidy(final: Path) -> None:
    """Remove what killed processes left of earlier tries at ``final``; give an old output its name back.

    Files that a living process holds, or may hold (on a disk without locks), stay.
    """
    for old in _siblings(final, "replaced"):
        with shielded_from_signals(), suppress(OSError), probed(old) as held:
            if not held:
                remove(old) if os.path.lexists(final) else old.rename(final)
    for left in _siblings(final, "partial"):
        with suppress(OSError), probed(left) as held:
            if held is False:
                remove(left)


@contextmanager
def probed(path: Path) -> Iterator[bool | None]:
    """Give whether another process holds ``path``, None where the disk cannot tell; hold it if none does."""
    held: bool | None = False
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            held = True if isinstance(error, BlockingIOError) else None
        yield held
    finally:
        os.close(descriptor)


def _siblings(final: Path, what: str) -> list[Path]:
    ours = re.compile(re.escape(f"{_stem(final)}.{what}") + r"-\d+-[0-9a-f]{6}")
    with suppress(OSError):
        return sorted(entry for entry in final.parent.iterdir() if ours.fullmatch(entry.name))
    return []


def hidden(final: Path, what: str) -> Path:
    """Return a hidden name beside ``final`` that no other process takes; ``what`` is "partial" or "replaced"."""
    return final.with_name(f"{_stem(final)}.{what}-{os.getpid()}-{secrets.token_hex(3)}")


def _stem(final: Path) -> str:
    name = final.name
    if len(name) > _LONGEST_STEM:
        # the hash tells names with the same beginning apart
        name = f"{name[: _LONGEST_STEM - 9]}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"
    return f".{name}"


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all in it, as far as the system allows."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)

"""Removes files from the cache that are no longer of use."""

from __future__ import annotations

import time
from pathlib import Path

from filelock import FileLock, Timeout

from emsr_fast.engine.cache import LEFT, OURS, TIMING, entries, own_folder, read_entry


def prune(*, unused_days: float | None = None, everything: bool = False, version: str | None = None) -> list[Path]:
    """Remove entries, and files that belong to no entry; return the files removed.

    Args:
        unused_days: entries that were not used for so many days.
        everything: all entries.
        version: entries that another version of the package made.

    Entries that a process is making just now stay.

    Raises:
        BackendError: somebody else can write to the cache.
    """
    removed = []
    for entry in entries():
        old = unused_days is not None and time.time() - entry.last_used > 86400 * unused_days
        foreign = version is not None and entry.key.get("emsr_fast") != version
        if everything or old or foreign:
            removed += _remove(entry.path.stem)
    for path in own_folder().glob("*"):
        if OURS.fullmatch(path.name):
            broken = path.suffix == ".json" and not _is_entry(path)
            if broken or not path.with_suffix(".json").exists():
                removed += _remove(path.stem)
        elif LEFT.fullmatch(path.name) and time.time() - path.stat().st_mtime > 3600:
            # of a process that died
            removed += _unlink(path)
        elif everything and path.name.startswith(TIMING):
            removed += _unlink(path)
    return removed


def _is_entry(path: Path) -> bool:
    try:
        return read_entry(path).payload_path.exists()
    except (ValueError, OSError):
        return False


def _remove(stem: str) -> list[Path]:
    """Remove all files of an entry, unless a process is making it."""
    folder, removed = own_folder(), []
    try:
        with FileLock(folder / f"{stem}.lock").acquire(timeout=0):
            # the description first: without it the rest is nothing
            for path in (folder / f"{stem}.json", *folder.glob(f"{stem}.*")):
                removed += _unlink(path)
    except Timeout:
        pass
    return removed


def _unlink(path: Path) -> list[Path]:
    try:
        path.unlink()
    except FileNotFoundError:
        return []
    return [path]

"""What the folder OUT.partial may hold: all else in it is somebody's, is never deleted, and no message advises to."""

from __future__ import annotations

import re
from pathlib import Path

from emsr_fast.wording import listed, shell

JOURNAL = "journal.json"
# these are there from the beginning to the end
UNFINISHED, WRITTEN, FAILED, BOUNDED = FOLDERS = ("unfinished", "written", "failed", "bounded")
_OTHERS = ("volume", "stopped", "export", "failed.json", "lock", "finish.lock")
_NAMED = 3  # strangers in a message


def is_part(name: str) -> bool:
    """Return whether a run makes a file or folder of this name in its folder."""
    return name in (JOURNAL, *FOLDERS, *_OTHERS) or re.fullmatch(r"tile-halved-\d+", name) is not None


def strangers(folder: Path) -> list[str]:
    """Return the names in ``folder`` that no run makes, sorted; none where there is no such folder."""
    try:
        return sorted(entry.name for entry in folder.iterdir() if not is_part(entry.name))
    except FileNotFoundError:
        return []


def to_start_anew(folder: Path) -> str:
    """Return what to do with a folder from which no run can go on, for the end of a message."""
    if not folder.is_dir():
        return "it is a file, which emsr-fast did not make: rename it, or choose another output"
    foreign = strangers(folder)
    if not foreign:
        return f"nothing can go on from it: to start anew, delete the folder: {shell('rm', '-r', folder)}"
    return (
        f"nothing can go on from it, and {folder} also holds {listed(foreign, _NAMED)}, which emsr-fast did not make: "
        "rename that folder, or choose another output"
    )

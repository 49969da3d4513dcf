"""What the folder OUT.partial may hold: all else in it is somebody's, is never deleted, and no message advises to."""

from __future__ import annotations

import os
import re
from pathlib import Path

from emsr_fast.trust.maps import MAPS
from emsr_fast.wording import listed, shell

JOURNAL = "journal.json"
# these are there from the beginning to the end
UNFINISHED, WRITTEN, FAILED, BOUNDED = FOLDERS = ("unfinished", "written", "failed", "bounded")
_OTHERS = ("volume", "stopped", "export", "failed.json", "lock", "finish.lock")
_BLOCK = r"\d+-\d+-\d+"
_INSIDE = {
    "volume": rf"zarr\.json|\.z(group|attrs|array)|c|\d+|trust|{'|'.join(MAPS)}",
    "stopped": rf"{_BLOCK}\.tiles",
    FAILED: rf"{_BLOCK}\.json",
    BOUNDED: rf"{_BLOCK}\.json",
    WRITTEN: r".+-[0-9a-f]{16}",
    UNFINISHED: r"\d+-[0-9a-f]{12}",
}
_LEAST_STEM = 31  # characters of a name that are kept where it is too long
_NAMED = 3  # strangers in a message


def is_part(name: str) -> bool:
    """Return whether a run makes a file or folder of this name in its folder."""
    return name in (JOURNAL, *FOLDERS, *_OTHERS) or re.fullmatch(r"tile-halved-\d+", name) is not None


def strangers(folder: Path) -> list[str]:
    """Return what no run makes in ``folder``, as paths from there, sorted; none where there is no such folder."""
    found: list[str] = []
    for place, folders, files in os.walk(folder):
        inside = Path(place).relative_to(folder).parts
        foreign = {name for name in (*folders, *files) if not _is_ours(folder, inside, name)}
        found += (Path(*inside, name).as_posix() for name in foreign)
        folders[:] = (name for name in folders if name not in foreign)
    return sorted(found)


def _is_ours(folder: Path, inside: tuple[str, ...], name: str) -> bool:
    """Return whether a run makes ``name`` in the folder of the parts ``inside`` below ``folder``."""
    if not inside:
        return is_part(name)
    if inside[0] == "export":
        # the output, maps beside it, and hidden names of both while they are written
        return name.removeprefix(".").startswith(folder.name.partition(".")[0][:_LEAST_STEM])
    return re.fullmatch(_INSIDE.get(inside[0], ""), name, re.ASCII) is not None


def to_throw_away(folder: Path) -> str:
    """Return how to be rid of a run, for the end of a message: no advice to delete what is somebody's."""
    foreign = strangers(folder)
    if not foreign:
        return f"throw the work away: {shell('rm', '-r', folder)}"
    return f"rename {folder}, which also holds {listed(foreign, _NAMED)}"


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

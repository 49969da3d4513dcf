"""Whether the input is still the one that a run was begun with: no output may be made of two versions of it.

First the files' sizes and times are compared, which costs next to nothing. Only where these differ, or where there are
none (a server), the pixels are: all of a small volume, samples of a large one, see ``fingerprint.of_input``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from emsr_fast.errors import VolumeError
from emsr_fast.infer.fingerprint import InputFingerprint, differences, is_read_whole
from emsr_fast.io.formats import TIFF_MAGIC, begins_with, is_volume_folder
from emsr_fast.io.locations import is_remote, within
from emsr_fast.io.readers.tiff.ome_set import set_of
from emsr_fast.wording import listed

_LISTING_S = 2.0  # of a folder with more files than can be listed in this time, those found are watched
_SHARE = 0.01  # of the time may be spent on looking
_NAMED = 3  # differences in a message


@dataclass(frozen=True)
class _Stamp:
    """What the file system says of a file."""

    size: int
    modified_ns: int
    inode: int
    changed_ns: int  # also where somebody sets the time of modification back


class InputWatch:
    """The files of an input since this was made, which is to be before the input is opened."""

    def __init__(self, path: str | Path) -> None:
        """Note how the files of the input at ``path``, as the user gave it, are now."""
        place = within(Path(path))[0]
        self.is_remote = is_remote(place)
        self._then = {} if self.is_remote else {name: _stamp(name) for name in _files(place)}
        self._next_look = 0.0

    def is_due(self) -> bool:
        """Return whether a look at the files now keeps to a hundredth of the time; at a server, it never does."""
        return not self.is_remote and time.monotonic() >= self._next_look

    def change(self, known: InputFingerprint, look: Callable[[], InputFingerprint]) -> str | None:
        """Return what changed, None where nothing did that matters.

        Args:
            known: the input's fingerprint when the run was begun.
            look: opens the input anew and returns its fingerprint.
        """
        start = time.monotonic()
        try:
            return self._change(known, look)
        finally:
            end = time.monotonic()
            self._next_look = end + (end - start) / _SHARE

    def _change(self, known: InputFingerprint, look: Callable[[], InputFingerprint]) -> str | None:
        now = {name: _stamp(name) for name in self._then}
        moved = [name for name in now if now[name] != self._then[name]]
        if not moved and not self.is_remote:
            return None
        try:
            found = look()
        except VolumeError as error:
            return str(error)
        pixels = list(differences(asdict(known), asdict(found), "input"))
        slices = known.sampled_slices
        pixels += [f"slice {z} can be read no more" for z in slices if slices[z] and not found.sampled_slices.get(z)]
        files = [words for name in moved for words in _differences(name, self._then[name], now[name])]
        # where the samples are not all, sizes and times decide
        if not pixels and (is_read_whole(found.shape) or not files):
            self._then = now
            return None
        different = [*files, *pixels]
        return listed(different, _NAMED, "; ")


def _files(place: Path) -> Iterator[Path]:
    """Yield the files of an input; of one made of folders also these, whose times tell of new files."""
    if not place.is_dir():
        yield place
        yield from (place.parent / name for name in _others(place))
        return
    is_store = _is_store(place)
    end = time.monotonic() + _LISTING_S
    for folder, _, names in os.walk(place):
        if is_store:
            yield Path(folder)
        for name in names:
            yield Path(folder, name)
        # what lies in folders of a folder of images is not of it
        if time.monotonic() > end or not is_store:
            return


def _others(place: Path) -> list[str]:
    """Return the names of the other files of a set of OME-TIFFs."""
    try:
        return set_of(place) if begins_with(place, TIFF_MAGIC) else []
    except OSError:
        return []  # whoever opens it says what is wrong


def _is_store(folder: Path) -> bool:
    """Return whether files in folders of ``folder`` belong to the input: it is one volume, no folder of images."""
    try:
        return is_volume_folder(folder)
    except OSError:
        return False  # as above


def _stamp(path: Path) -> _Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return _Stamp(found.st_size, found.st_mtime_ns, found.st_ino, found.st_ctime_ns)


def _differences(path: Path, then: _Stamp | None, now: _Stamp | None) -> Iterator[str]:
    if then is None or now is None:
        yield f"{path.name} {'is there now' if then is None else 'is gone'}"
        return
    if then.size != now.size:
        yield f"{path.name} had {then.size} bytes, has {now.size}"
    # some network disks give a file another number at any time
    if then.inode != now.inode and then.changed_ns != now.changed_ns:
        yield f"{path.name} was replaced by another file"
    if then.modified_ns != now.modified_ns:
        yield f"{path.name} was modified at {_time(then.modified_ns)}, is modified at {_time(now.modified_ns)}"


def _time(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9).isoformat(sep=" ", timespec="milliseconds")

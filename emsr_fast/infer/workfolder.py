"""The work folder OUT.partial of an output. Running the same command again continues it.

    OUT.partial/journal.json   the run (run.py), written once, with the folder itself
    OUT.partial/volume/        the OME-Zarr; a shard's file is there when, and only when, its block is done
    OUT.partial/failed/        slices that could not be done, and why (marks.py); failed.json has the same for people
    OUT.partial/bounded/       how many pixels were beyond what the network is given (marks.py)
    OUT.partial/stopped/       the finished tiles of blocks that Ctrl-C or a signal cut short (stopped.py)
    OUT.partial/written/       hashes of the files of volume/ (written.py)
    OUT.partial/unfinished/    files being written; leftovers of killed processes
    OUT.partial/export/        an output of another format, written from the finished volume

The name OUT appears with one rename, when all is done. There is no list of finished blocks: the shards themselves are
the list, so the two cannot disagree.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from emsr_fast.errors import VolumeError
from emsr_fast.holding import held
from emsr_fast.infer.marks import BlockMarks
from emsr_fast.infer.parts import FOLDERS, JOURNAL, UNFINISHED, is_part, strangers, to_start_anew
from emsr_fast.infer.run import Publication, Run
from emsr_fast.infer.written import WrittenFiles
from emsr_fast.io.destination import system_errors
from emsr_fast.io.writers.ome_zarr import Put
from emsr_fast.leftovers import tidy
from emsr_fast.publish import Check, Staging, last_look, publish
from emsr_fast.shield import shielded_from_signals

_LONGEST_NAME = 240  # bytes; file systems take 255


class WorkFolder:
    """The folder OUT.partial of an output."""

    def __init__(self, final: Path) -> None:
        self.final = final
        self.path = work_path(final)
        self.volume = self.path / "volume"
        self.unfinished = self.path / UNFINISHED
        self.stopped = self.path / "stopped"
        self.marks = BlockMarks(self.path, self.unfinished)
        self.files = WrittenFiles(self.path)

    def tidy(self) -> None:
        """Remove what killed processes left beside the output; give an old output its name back."""
        tidy(self.final)
        tidy(self.path)
        with suppress(OSError):
            self.path.rmdir()  # empty: a kill came at the end of ``remove``

    def exists(self) -> bool:
        """Return whether a run has begun."""
        return (self.path / JOURNAL).is_file()

    def check_place(self) -> None:
        """Raise VolumeError if the path of this folder is taken by something else than a run or an empty folder."""
        # another process may begin or end a run meanwhile: the journal comes with the folder, and goes last
        if not self.exists() and self._is_taken() and not self.exists():
            raise VolumeError(f"{self.path} holds no run: it has no {JOURNAL}; {to_start_anew(self.path)}")

    def _is_taken(self) -> bool:
        try:
            return any(self.path.iterdir())
        except FileNotFoundError:
            return False
        except NotADirectoryError:
            return self.path.exists()  # it is a file; not where a parent folder is one

    def create(self, run: Run, make_volume: Callable[[Path, Put], Any]) -> bool:
        """Make the complete folder in one step; return whether this process made it, not another.

        Args:
            make_volume: makes the empty volume, given its path and a function that writes its files.
        """
        try:
            with system_errors(self.final), Staging(self.path, _refuse_any, folder=True, durable=True) as start:
                for folder in FOLDERS:
                    (start / folder).mkdir()
                make_volume(start / "volume", WrittenFiles(start).write)
                (start / "lock").touch()
                run.save(start, start / UNFINISHED)
        except VolumeError:
            if self.exists():
                return False  # another process was faster
            raise
        return True

    def run(self) -> Run:
        """Return the run that was begun here.

        Raises:
            VolumeError: its file is damaged, was changed, or is of another format.
        """
        return Run.load(self.path)

    @contextmanager
    def locked(self, *, alone: bool) -> Iterator[None]:
        """Lock the folder, exclusively or shared. The end of the process unlocks it, also a kill.

        On a disk without locks, two runs would do the same work twice, to the same bytes.

        Raises:
            VolumeError: another process holds it, or has just removed it.
        """
        advice = "wait for it, or let both share it with `shard=i/N`"
        with system_errors(self.final), ExitStack() as ending:
            try:
                ending.enter_context(held(self.path / "lock", f"is writing {self.final}", advice, alone=alone))
            except FileNotFoundError as error:
                raise VolumeError(
                    f"another process has just ended the run in {self.path}; give the command again"
                ) from error
            yield

    def halvings(self) -> int:
        """Return how often the tile was halved for want of memory."""
        return len(list(self.path.glob("tile-halved-*")))

    def halve_once_more(self, times: int) -> None:
        """Note that the tile was halved ``times`` times, so that later blocks and workers use the same tile."""
        (self.path / f"tile-halved-{times}").touch()

    def publish(self, ready: Path, check: Check, beside: Mapping[Path, Path] | None = None) -> None:
        """Give ``ready``, in this folder, the final name; remove the old output and the rest of the folder.

        Args:
            check: raises VolumeError unless a final name is free or may be replaced; then the folder is kept.
            beside: files in this folder, and the names that they get before the output gets its own.
        """
        names, fate = {**(beside or {}), ready: self.final}, f"is kept in {self.path}"
        with system_errors(self.final), shielded_from_signals():
            published = self._note_ready(ready, list(names))

            def check_others(name: Path) -> None:
                # what a killed try of ours gave its name already is ours
                if _identity(name) not in published:
                    check(name)

            for name in names.values():
                last_look(name, check_others, fate)
            for part, name in names.items():
                publish(part, name, check_others, fate=fate, durable=True)
            self.remove()

    def _note_ready(self, ready: Path | None, parts: Sequence[Path] = ()) -> tuple[str, ...]:
        """Note what is about to get a final name; return its identities and those of earlier tries."""
        run = self.run()
        earlier = run.publication.identities if run.publication else ()
        identities = (*earlier, *filter(None, map(_identity, parts)))
        # the count too: a kill while the folder is removed may leave no marks
        place = None if ready is None else os.fspath(ready.relative_to(self.path))
        publication = Publication(place, identities, self.marks.bounded_pixels())
        replace(run, publication=publication).save(self.path, self.unfinished)
        return identities

    def published(self) -> Publication | None:
        """Return the publication if the output has its final name already and only remains of this folder are left."""
        publication = self.run().publication
        if publication is None or publication.ready is None or not self.final.exists():
            return None
        left = self.path / publication.ready
        # where two names are exchanged in one step, the old output is in the place of the new one
        if not left.exists() or _identity(self.final) in publication.identities:
            return publication
        if left.is_dir() and _identity(left) not in publication.identities:
            raise VolumeError(
                f"{self.path} was copied while its output was given its name, and may hold the old output of "
                f"{self.final}; look at both, then delete or rename one of them"
            )
        return None

    def is_remains(self) -> bool:
        """Return whether this folder is what a kill left while a run without any result was being removed."""
        return self.exists() and not self.volume.exists() and self.published() is None

    def empty_export(self) -> Path:
        """Return the folder in which an output of another format is made, without what an earlier try left."""
        folder = self.path / "export"
        self._note_ready(None)
        foreign = strangers(self.path)
        for entry in folder.glob("*"):
            if f"{folder.name}/{entry.name}" not in foreign:
                _remove(entry)
        folder.mkdir(exist_ok=True)
        return folder

    def remove(self) -> None:
        """Remove the files of the run, the journal last, so that a kill leaves a folder that can be recognised.

        The folder stays if it holds anything else, and so does a part of it that does.
        """
        with shielded_from_signals():
            foreign = {name.partition("/")[0] for name in strangers(self.path)}
            with suppress(FileNotFoundError):
                for entry in self.path.iterdir():
                    if is_part(entry.name) and entry.name not in {*foreign, JOURNAL}:
                        _remove(entry)
            _remove(self.path / JOURNAL)
            with suppress(OSError):
                self.path.resolve().rmdir()
                if self.path.is_symlink():
                    self.path.unlink()
            tidy(self.path)


def _remove(path: Path) -> None:
    """Remove a file or folder, which another process may be removing as well: it found a published output here."""
    while os.path.lexists(path):
        with suppress(FileNotFoundError):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def work_path(final: Path) -> Path:
    """Return the folder in which the output ``final`` is made."""
    name = final.name
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = f"{name[:40]}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"
    return final.with_name(f"{name}.partial")


def _refuse_any(path: Path) -> None:
    if os.path.lexists(path):
        raise VolumeError(f"{path} exists and does not hold a run; move it away, or choose another output")


def _identity(path: Path) -> str | None:
    """Return an identity that a file or folder keeps when it is renamed; None if there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    # the number of a file that is gone is given to another; of a folder, the time changes with the names in it
    return f"{found.st_ino}" if path.is_dir() else f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}"

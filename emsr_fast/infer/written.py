"""What the processes of a run wrote into its volume, so that a file that was cut, changed or exchanged since is seen.

    OUT.partial/written/COMMAND-TOKEN    24 bytes for each file, appended before the file has its name

A record holds hashes of the file's name and of its name and content together: a whole copy of another shard is noticed.
A record of a shard is not put on the disk by itself: where a power cut takes it away, the shard is done again. What
other commands wrote is read to see that it is whole; of a command's own files, the size is enough.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import secrets
import stat
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from emsr_fast.infer.parts import UNFINISHED, WRITTEN
from emsr_fast.publish import write_durably
from emsr_fast.reading import read_regular

T = TypeVar("T")

_RECORD = np.dtype([("name", "<u8"), ("size", "<u8"), ("content", "<u8")])
_METADATA = ("zarr.json", ".zgroup", ".zattrs", ".zarray")  # a run cannot go on without these
_READ_BYTES = 2**20
_READERS, _BATCH = 4, 1024


class WrittenFiles:
    """The files of a volume: written durably, and remembered."""

    def __init__(self, run_folder: Path) -> None:
        """Use ``run_folder``, OUT.partial, which need not exist yet."""
        self._folder, self._unfinished = run_folder / WRITTEN, run_folder / UNFINISHED
        self._volume = run_folder / "volume"
        self._command = self._token = secrets.token_hex(8)
        self._records, self._ours = np.empty(0, _RECORD), np.empty(0, bool)
        self._whole: dict[int, tuple[int, int]] = {}  # of files that were read here: size and hash, by name

    def write_for(self, command: str) -> None:
        """Take what follows as written for ``command``, which may have other processes."""
        self._command = command

    def write(self, path: Path, data: Any) -> None:
        """Write ``data`` to ``path`` in one step, and remember it."""
        name = self._name(path)
        key, size, content = _number(hashlib.sha256(name)), len(memoryview(data).cast("B")), _content(name, [data])
        record = np.array([(key, size, content)], _RECORD)
        self._whole.pop(key, None)
        # closed each time, so that other machines see it
        with (self._folder / f"{self._command}-{self._token}").open("ab", buffering=0) as file:
            file.write(record.tobytes())
            if path.name in _METADATA:
                os.fsync(file.fileno())
        write_durably(path, data, self._unfinished)

    def look_again(self) -> None:
        """Read the records of all processes, for what ``hash_of`` says from now on."""
        parts, ours = [np.empty(0, _RECORD)], [np.empty(0, bool)]
        for path in sorted(self._folder.glob("*-*")):
            # a record may be half written
            data = read_regular(path, sys.maxsize)
            parts.append(np.frombuffer(data, _RECORD, len(data) // _RECORD.itemsize))
            ours.append(np.full(len(parts[-1]), path.name.startswith(f"{self._command}-")))
        records, own = np.concatenate(parts), np.concatenate(ours)
        order = np.argsort(records["name"], kind="stable")
        self._records, self._ours = records[order], own[order]

    def hash_of(self, path: Path, *, read: bool = False) -> int | None:
        """Return the hash of the name and content of a file that is as it was written, as far as is known; else None.

        Args:
            read: whether also what this command wrote is read.
        """
        name = self._name(path)
        key = _number(hashlib.sha256(name))
        try:
            found = path.lstat()  # a link may lead out of the output
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(found.st_mode):
            return None
        first, last = (int(np.searchsorted(self._records["name"], np.uint64(key), side)) for side in ("left", "right"))
        records, ours = self._records[first:last], self._ours[first:last]
        fitting = records["size"] == found.st_size
        own = {int(content) for content in records["content"][fitting & ours]}
        if len(own) == 1 and not read:
            return own.pop()
        if not fitting.any():
            return None
        if key in self._whole and self._whole[key][0] == found.st_size and not read:
            return self._whole[key][1]
        content = _content(name, _pieces(path))
        if content not in records["content"][fitting]:
            return None
        self._whole[key] = found.st_size, content
        return content

    def hashes_of(self, files: Iterable[tuple[T, Path]]) -> Iterator[tuple[T, Path, int | None]]:
        """Yield each of ``files``, something and a path, with what ``hash_of`` returns; several are read at a time."""
        waiting = iter(files)
        with ThreadPoolExecutor(_READERS, "emsr-look") as pool:
            while batch := list(itertools.islice(waiting, _BATCH)):
                for (what, path), found in zip(batch, pool.map(lambda one: self.hash_of(one[1]), batch), strict=True):
                    yield what, path, found

    def _name(self, path: Path) -> bytes:
        return os.fsencode(path.relative_to(self._volume).as_posix())


def hash_of_file(path: Path, volume: Path) -> int:
    """Return the hash of the name and content of a file of ``volume``."""
    return _content(os.fsencode(path.relative_to(volume).as_posix()), _pieces(path))


def sum_as_text(total: int) -> str:
    """Return the sum of the hashes of all files of a level, which no exchange of two of them leaves as it is."""
    return f"{total % 2**64:016x}"


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_READ_BYTES):
            yield piece


def _content(name: bytes, pieces: Iterable[Any]) -> int:
    digest = hashlib.sha256(name + b"\0")
    for piece in pieces:
        digest.update(piece)
    return _number(digest)


def _number(digest: Any) -> int:
    return int.from_bytes(digest.digest()[:8], "little")

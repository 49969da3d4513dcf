"""Which chunks of a volume are stored: every library silently reads a missing one as the fill value."""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Protocol

from emsr_fast.errors import VolumeError
from emsr_fast.io.readers.parts.files import check_regular

Index = tuple[int, ...]

# no volume may take long to open: some hundred thousand names on a disk
LISTING_SECONDS = 2.0
# chunks that are looked for one by one where a folder cannot be listed, or not in that time; where none of the
# first is there, more, while there is time
SAMPLE, LARGEST_SAMPLE = 64, 512
_DEEPEST = 8


class UnlistedError(Exception):
    """A folder cannot be listed, or not within ``LISTING_SECONDS``."""


class Files(Protocol):
    """The files of an array's folder."""

    def names(self) -> Iterator[str]:
        """Yield the files' names relative to the folder; raise ``UnlistedError`` if it takes too long."""
        ...

    def has(self, names: Sequence[str]) -> int:
        """Return how many of ``names`` exist; raise ``UnlistedError`` if that cannot be known."""
        ...


class LocalFiles:
    """A folder on a disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> Iterator[str]:
        """Yield the files' names relative to the folder."""
        end, waiting = time.monotonic() + LISTING_SECONDS, [""]
        while waiting:
            place = waiting.pop()
            # a volume without chunks may lack the folder for them
            if not (self.folder / place).exists():
                continue
            with os.scandir(self.folder / place) as entries:
                for number, entry in enumerate(entries):
                    if number % 256 == 0 and time.monotonic() > end:
                        raise UnlistedError
                    if entry.is_file():
                        yield f"{place}{entry.name}"
                    # links may lead in a circle
                    elif entry.is_dir():
                        if place.count("/") < _DEEPEST:
                            waiting.append(f"{place}{entry.name}/")
                    elif os.path.exists(entry.path):
                        check_regular(Path(entry.path), self.folder)

    def has(self, names: Sequence[str]) -> int:
        """Return how many of ``names`` are there."""
        return sum((self.folder / name).is_file() for name in names)


@dataclass(frozen=True)
class Naming:
    """How the files of an array's chunks are named."""

    grid: Index  # chunks along each stored axis
    name: Callable[[Index], str]  # from the array's folder on
    index: Callable[[str], Index | None]  # None for a file that is no chunk

    def is_chunk(self, name: str) -> bool:
        """Return whether a file is a chunk within the array's present shape."""
        index = self.index(name)
        return index is not None and all(at < count for at, count in zip(index, self.grid, strict=True))

    def samples(self) -> Iterator[list[str]]:
        """Yield the names of ``SAMPLE`` chunks spread evenly, then of others between, ``LARGEST_SAMPLE`` in all."""
        first = self._spread(SAMPLE)
        more = sorted(set(self._spread(LARGEST_SAMPLE)) - set(first))
        parts = -(-len(more) // SAMPLE)
        for numbers in (first, *(more[part::parts] for part in range(parts))):
            yield [self.name(self._at(number)) for number in numbers]

    def _spread(self, most: int) -> list[int]:
        total = math.prod(self.grid)
        count = min(total, most)
        return [number * (total - 1) // max(count - 1, 1) for number in range(count)]

    def _at(self, number: int) -> Index:
        index = []
        for side in reversed(self.grid):
            number, at = divmod(number, side)
            index.append(at)
        return tuple(reversed(index))


@dataclass(frozen=True)
class Stored:
    """How many chunks of a volume are stored."""

    found: int
    looked_for: int  # as many as there are; fewer where only some could be looked for, 0 where none could
    total: int
    seen: bool = False  # whether a listing that had no end in time came upon one

    def checked(self, path: PurePath, fill: Any, unit: str = "chunks") -> tuple[tuple[str, ...], dict[str, int]]:
        """Return notes, and the numbers for the output's provenance; both are empty if every chunk is stored.

        Args:
            fill: the value of chunks that are not stored.
            unit: what one file holds, "chunks" or "shards".

        Raises:
            VolumeError: none is stored, or none of those that were looked for.
        """
        if not self.looked_for:
            return (f"whether all of its {self.total} {unit} are stored cannot be seen here",), {}
        absent, of = self.looked_for - self.found, f"{self.looked_for} {unit}"
        if self.looked_for == self.total and self.found == 0:
            raise VolumeError(
                f"{path} has none of its {of} stored: it would read as {fill} everywhere; copy it again, "
                "or check that its header and its data belong together"
            )
        if self.found == 0 and not self.seen:
            raise VolumeError(
                f"{path} has none of {of} stored that were looked for, spread over all {self.total}: it would read "
                f"as {fill} nearly everywhere; copy it again, or check that its header and its data belong together; "
                "if that is intended, copy it to a disk, where all are counted"
            )
        if not absent:
            return (), {}
        if self.looked_for < self.total:
            of += f" looked for (there are {self.total})"
        numbers = {"not_stored": absent, "looked_for": self.looked_for, "chunks": self.total}
        return (f"{absent} of {of} are not stored: read as the fill value {fill}",), numbers


def look_for(files: Files, namings: Sequence[Naming]) -> list[Stored]:
    """Return how many chunks are stored under each of ``namings``."""
    total = math.prod(namings[0].grid)
    counts = [0] * len(namings)
    try:
        for name in files.names():
            for number, naming in enumerate(namings):
                if naming.is_chunk(name):
                    counts[number] += 1
                    break
    except UnlistedError:
        return _asked_for(files, namings, total, seen=any(counts))
    return [Stored(count, total, total) for count in counts]


def _asked_for(files: Files, namings: Sequence[Naming], total: int, *, seen: bool) -> list[Stored]:
    end, counts, looked_for = time.monotonic() + LISTING_SECONDS, [0] * len(namings), 0
    try:
        for samples in zip(*(naming.samples() for naming in namings), strict=True):
            counts = [files.has(sample) for sample in samples]
            looked_for += len(samples[0])
            if any(counts) or seen or time.monotonic() > end:
                break
    except UnlistedError:
        looked_for = 0
    return [Stored(count, looked_for, total, seen or any(counts)) for count in counts]


def grid_of(shape: Sequence[int], chunks: Sequence[int]) -> Index:
    """Return how many chunks there are along each axis."""
    return tuple(-(-int(side) // max(int(chunk), 1)) for side, chunk in zip(shape, chunks, strict=True))


def touched(where: Sequence[int | slice], sides: Sequence[int], shape: Sequence[int]) -> Iterator[Index]:
    """Yield the chunks, with ``sides``, of an array of ``shape`` that hold the voxels ``where``."""
    ranges = []
    for at, side, length in zip(where, sides, shape, strict=True):
        first, last, _ = at.indices(length) if isinstance(at, slice) else (at, at + 1, 1)
        ranges.append(range(first // side, -(-last // side)))
    yield from itertools.product(*ranges)


def numbered(grid: Index, separator: str, prefix: str = "") -> Naming:
    """Return names that are the chunk's numbers, such as 0.12.3 or c/0/12/3."""

    def name(index: Index) -> str:
        return prefix + separator.join(map(str, index))

    def index(name: str) -> Index | None:
        numbers = name.removeprefix(prefix).split(separator)
        if not name.startswith(prefix) or len(numbers) != len(grid):
            return None
        found = tuple(int(number) for number in numbers if number.isascii() and number.isdecimal())
        return found if prefix + separator.join(map(str, found)) == name else None

    return Naming(grid, name, index)

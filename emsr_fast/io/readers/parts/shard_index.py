"""What Zarr shards hold: the index of each says where its chunks lie, and which are not stored."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from emsr_fast.io.readers.parts.missing_chunks import LISTING_SECONDS, Index, Naming, Stored
from emsr_fast.wording import counted

_ABSENT = np.uint64(2**64 - 1)
_CHECKSUM_BYTES = 4


@dataclass(frozen=True)
class Inside:
    """How many chunks the shards of a volume hold."""

    shards: int  # whose index was read
    chunks: int  # that these have within the volume
    absent: int  # of them, those that are not stored
    damaged: int  # shards that are cut, or whose index leads out of them
    all_read: bool  # whether the index of every shard that is there was read in time

    @property
    def numbers(self) -> dict[str, int]:
        """What the output's provenance says; empty where every chunk is stored."""
        return {"not_stored_in_shards": self.absent, "chunks_in_shards": self.chunks} if self.absent else {}

    def checked(self, path: PurePath, fill: Any) -> tuple[str, ...]:
        """Return notes, none where every chunk is stored.

        Args:
            fill: the value that chunks have which are not stored.

        Raises:
            VolumeError: all shards were looked into, and hold not one chunk.
        """
        if self.all_read and self.chunks and self.absent == self.chunks:
            return Stored(0, self.chunks, self.chunks).checked(path, fill)[0]  # raises
        notes = []
        if self.absent:
            notes.append(
                f"{self.absent} of {self.chunks} chunks in shards are not stored: read as the fill value {fill}"
            )
        if self.damaged:
            notes.append(f"{counted(self.damaged, 'shard')} cut or damaged: what they hold cannot be read")
        if not self.all_read:
            notes.append(
                f"only {counted(self.shards, 'shard')} looked into; what others lack reads as the fill value {fill}"
            )
        return tuple(notes)


def look_inside(folder: Path, described: Mapping[str, Any], naming: Naming) -> Inside | None:
    """Return what the shards of the array in ``folder`` hold; None where their index is of a kind not known here.

    Args:
        described: its zarr.json.
        naming: how its files are named.
    """
    layout = _layout_of(described)
    if layout is None:
        return None
    shards = chunks = absent = damaged = 0
    end = time.monotonic() + LISTING_SECONDS
    for index in np.ndindex(naming.grid):
        if shards % 64 == 0 and time.monotonic() > end:
            return Inside(shards, chunks, absent, damaged, all_read=False)
        try:
            entries = layout.read(folder / naming.name(index))
        except FileNotFoundError:
            continue
        shards += 1
        inside = layout.inside(index)
        chunks += math.prod(inside)
        if entries is None:
            damaged += 1
        else:
            missing = (entries == _ABSENT).all(axis=-1).reshape(layout.counts)
            absent += int(missing[tuple(map(slice, inside))].sum())
    return Inside(shards, chunks, absent, damaged, all_read=True)


@dataclass(frozen=True)
class _Layout:
    shape: Index
    shard: Index
    chunk: Index
    at_start: bool
    checksum: bool

    @property
    def counts(self) -> Index:
        """How many chunks a shard has along each axis."""
        return tuple(side // part for side, part in zip(self.shard, self.chunk, strict=True))

    def read(self, path: Path) -> np.ndarray | None:
        """Return offset and length of each chunk, (chunks, 2) of uint64; None where the file does not hold them."""
        entries = 16 * math.prod(self.counts)
        length = entries + (_CHECKSUM_BYTES if self.checksum else 0)
        if not path.is_file():
            raise FileNotFoundError(path)  # also for a FIFO, which would wait for ever
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size < length:
                return None
            file.seek(0 if self.at_start else size - length)
            found = np.frombuffer(file.read(entries), "<u8").reshape(-1, 2)
        stored = found[(found != _ABSENT).any(axis=1)]
        # in Python's numbers: the sum of two may not fit
        fits = all(int(offset) + int(part) <= size for offset, part in stored)
        return found if fits else None

    def inside(self, index: Index) -> Index:
        """Return how many chunks of shard ``index``, its first along each axis, begin within the volume."""
        sides = zip(index, self.shard, self.counts, self.chunk, self.shape, strict=True)
        return tuple(min(count, -(-(length - at * side) // part)) for at, side, count, part, length in sides)


def _layout_of(described: Mapping[str, Any]) -> _Layout | None:
    codecs: list[Any] = list(described.get("codecs") or ())
    if len(codecs) != 1 or codecs[0].get("name") != "sharding_indexed":
        return None
    how = codecs[0]["configuration"]
    of_index: list[Any] = list(how.get("index_codecs") or ())
    kinds = [codec["name"] for codec in of_index]
    ends = {(codec.get("configuration") or {}).get("endian", "little") for codec in of_index}
    if kinds not in (["bytes"], ["bytes", "crc32c"]) or ends != {"little"}:
        return None
    return _Layout(
        shape=tuple(described["shape"]),
        shard=tuple(described["chunk_grid"]["configuration"]["chunk_shape"]),
        chunk=tuple(how["chunk_shape"]),
        at_start=how.get("index_location", "end") == "start",
        checksum="crc32c" in kinds,
    )

"""Blocks that Ctrl-C or a signal cut short: their finished tiles are saved, one file for each block.

A kill saves nothing. A file that is damaged, or of another run or tiling, is never used.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emsr_fast.infer.plan import Plan
from emsr_fast.io.selection import ZYX
from emsr_fast.publish import write_durably
from emsr_fast.reading import read_regular

_SUFFIX = ".tiles"
_HASH_BYTES = hashlib.sha256().digest_size


@dataclass
class StartedBlock:
    """A block of which some tiles are done."""

    index: ZYX  # of the block
    done: np.ndarray  # bool, (slices, tiles of a slice); the last tile never is, since it finishes the block
    bounded: np.ndarray  # int64, (slices,): LR pixels beyond what the network is given, of slices with a tile done
    pixels: np.ndarray  # (slices, rows, columns) of the output, 0 where nothing is done
    maps: dict[str, np.ndarray]  # of trust, float32, NaN where nothing is done


class StoppedBlocks:
    """The blocks of one run that were cut short, in a folder."""

    def __init__(self, folder: Path, unfinished: Path, run: str, say: Callable[[str], None]) -> None:
        """Use ``folder``, which need not exist yet.

        Args:
            unfinished: an existing folder of the same file system, for files being written.
            run: the key of this run, which no other run has.
            say: called with a line for the user.
        """
        self._folder, self._unfinished, self._run, self._say = folder, unfinished, run, say

    def save(self, started: StartedBlock, plan: Plan) -> None:
        """Save the finished tiles of a block of ``plan``. A failure is said; the tiles are then computed again."""
        self._say("note    saving what is done of the block at work; a second Ctrl-C ends at once, without it")
        some = started.done.any(axis=1)
        packed = io.BytesIO()
        maps: dict[str, Any] = {f"map-{name}": values[some] for name, values in started.maps.items()}
        np.savez(packed, done=started.done, bounded=started.bounded, pixels=started.pixels[some], **maps)
        data = packed.getbuffer()
        try:
            hashed = self._hash(started.index, plan, data)
            write_durably(self._path(started.index), hashed + data, self._unfinished)
        except OSError as error:
            self._say(f"note    what is done of the block at work could not be saved, and is lost: {error}")

    def load(self, index: ZYX, plan: Plan) -> StartedBlock | None:
        """Return what is saved of the block at ``index``; None if there is nothing, or it cannot be used."""
        try:
            data = memoryview(read_regular(self._path(index), sys.maxsize))
        except OSError:
            return None
        if data[:_HASH_BYTES] != self._hash(index, plan, data[_HASH_BYTES:]):
            return None
        with np.load(io.BytesIO(data[_HASH_BYTES:])) as stored:
            done = stored["done"]
            some = done.any(axis=1)

            def whole(kept: np.ndarray, nothing: float) -> np.ndarray:
                values = np.full((len(done), *kept.shape[1:]), nothing, kept.dtype)
                values[some] = kept
                return values

            maps = {n.removeprefix("map-"): whole(stored[n], np.nan) for n in stored.files if n.startswith("map-")}
            return StartedBlock(index, done, stored["bounded"], whole(stored["pixels"], 0), maps)

    def forget(self, index: ZYX) -> None:
        """Remove what is saved of the block at ``index``."""
        self._path(index).unlink(missing_ok=True)

    def indices(self) -> Iterator[ZYX]:
        """Yield the blocks that have a file, usable or not."""
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            if named := re.fullmatch(r"(\d+)-(\d+)-(\d+)", path.stem, re.ASCII):
                z, y, x = map(int, named.groups())
                yield z, y, x

    def _path(self, index: ZYX) -> Path:
        return self._folder / f"{'-'.join(map(str, index))}{_SUFFIX}"

    def _hash(self, index: ZYX, plan: Plan, data: memoryview) -> bytes:
        """Return a hash of ``data`` with the run, the block and the plan that it belongs to."""
        owner = json.dumps([self._run, index, asdict(plan)])
        hashed = hashlib.sha256(owner.encode())
        hashed.update(data)
        return hashed.digest()

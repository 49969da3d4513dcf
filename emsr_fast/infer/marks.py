"""What a run notes about its blocks: slices that failed, and pixels that were bounded for the network.

Each block has its own file. It is written before the block's shard, so that no shard hides a failed slice.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from emsr_fast.errors import VolumeError
from emsr_fast.infer.parts import BOUNDED, FAILED, to_start_anew
from emsr_fast.infer.strict_json import read_as
from emsr_fast.io.destination import printable
from emsr_fast.io.selection import ZYX
from emsr_fast.publish import write_durably
from emsr_fast.reading import parse_json, read_regular

Mark = TypeVar("Mark")


@dataclass(frozen=True)
class _FailedSlices:
    """What ``failed/`` holds of a block."""

    block: ZYX
    slices: dict[str, str]  # by number of the slice: why it could not be done


@dataclass(frozen=True)
class _BoundedPixels:
    """What ``bounded/`` holds of a block."""

    pixels: int


class BlockMarks:
    """The marks in the folder of a run, OUT.partial."""

    def __init__(self, run_folder: Path, unfinished: Path) -> None:
        """Use ``run_folder``, which need not exist yet; files being written are in ``unfinished``."""
        self._run_folder, self._unfinished = run_folder, unfinished
        self._failed, self._bounded = (run_folder / name for name in (FAILED, BOUNDED))
        self.list = run_folder / "failed.json"  # for people

    def set_failed(self, index: ZYX, slices: dict[int, str]) -> None:
        """Note which slices of block ``index`` failed, and why; to be called before its shard is written."""
        write_durably(
            _mark(self._failed, index),
            _encoded(asdict(_FailedSlices(index, {str(z): reason for z, reason in slices.items()}))),
            self._unfinished,
        )

    def failed(self) -> dict[ZYX, dict[int, str]]:
        """Return the slices that failed, by block, each with its reason."""
        found: dict[ZYX, dict[int, str]] = {}
        for path in sorted(self._failed.glob("*.json")):
            mark = self._read_mark(_FailedSlices, path)
            found[mark.block] = {int(z): reason for z, reason in mark.slices.items()}
        return found

    def set_bounded(self, index: ZYX, pixels: int) -> None:
        """Note how many input pixels of block ``index`` were bounded; to be called before its shard is written."""
        if pixels:
            write_durably(_mark(self._bounded, index), _encoded(asdict(_BoundedPixels(pixels))), self._unfinished)
        else:
            # an earlier try may have been killed between mark and shard, and its input mended since
            _mark(self._bounded, index).unlink(missing_ok=True)

    def bounded_pixels(self) -> int:
        """Return how many input pixels were bounded, in all blocks of all processes."""
        pixels = 0
        for path in self._bounded.glob("*.json"):
            # another process of an array job may have published the output, and be removing this folder
            with suppress(FileNotFoundError):
                pixels += self._read_mark(_BoundedPixels, path).pixels
        return pixels

    def _read_mark(self, kind: type[Mark], path: Path) -> Mark:
        try:
            mark: Mark = read_as(kind, parse_json(read_regular(path)), path.stem)
            return mark
        except (ValueError, IsADirectoryError) as error:
            raise VolumeError(
                f"{path} is damaged ({error}), so what is done cannot be trusted; {to_start_anew(self._run_folder)}"
            ) from error

    def forgive(self, index: ZYX) -> None:
        """Remove what is noted of block ``index``, whose shard is gone."""
        for folder in (self._failed, self._bounded):
            _mark(folder, index).unlink(missing_ok=True)

    def write_list(self, retry: str) -> Path:
        """Write failed.json for people, or remove it if nothing failed; return its path."""
        path, failed = self.list, self.failed()
        if failed:
            slices: dict[int, str] = {}
            for reasons in failed.values():
                slices |= reasons
            blocks = [list(index) for index in failed]
            listed = {str(z): slices[z] for z in sorted(slices)}
            write_durably(path, _encoded({"slices": listed, "blocks": blocks, "retry": retry}), self._unfinished)
        else:
            path.unlink(missing_ok=True)
        return path


def _mark(folder: Path, index: ZYX) -> Path:
    return folder / f"{'-'.join(map(str, index))}.json"


def _encoded(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=1, default=printable) + "\n").encode()

"""The stream: blocks are read and normalised ahead of the network, and mapped back, encoded and written behind it.

Held at any time: one block's input, a few tiles on either side of the network, one block of output being filled and one
being encoded. None of it grows with the volume.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from emsr_fast.errors import BackendError, VolumeError
from emsr_fast.trust.maps import RESIDUAL, Trust, aligned_stop, rounded
from emsr_fast.volume.formats.base import SourceVolume
from emsr_fast.volume.intensity import Normalisation, check_finite
from emsr_fast.volume.plan import Block, Plan
from emsr_fast.volume.streams import Behind, ahead
from emsr_fast.volume.tiles import Tile

# engines bring torch, which takes seconds; what only prepares a prediction does without
if TYPE_CHECKING:
    from emsr_fast.engine.base import Engine

_TILES_WAITING = 3  # before the network, and behind it
_STRIP_PX = 2**19  # HR pixels mapped back at once: float64 needs eight bytes for each, several times


class TileTooLarge(BackendError):
    """The engine ran out of memory on a tile."""


@dataclass
class Outcome:
    """What a run over blocks did."""

    blocks: int = 0
    lr_pixels: int = 0  # of the input, each counted once
    clipped: int = 0  # HR pixels outside the range of an integer dtype
    network_s: float = 0.0  # inside the engine
    seconds: float = 0.0  # of the streams, those of several workers added up
    failed: dict[int, str] = field(default_factory=dict)  # slice of the input: why it could not be done

    def add(self, other: Outcome) -> None:
        """Count what another worker did at the same time."""
        self.blocks += other.blocks
        self.lr_pixels += other.lr_pixels
        self.clipped += other.clipped
        self.network_s += other.network_s
        self.seconds += other.seconds
        self.failed |= other.failed


@dataclass(frozen=True)
class FinishedBlock:
    """The pixels of a block, and which of its slices could not be done: zeros in ``pixels``, reasons in ``failed``."""

    block: Block
    pixels: np.ndarray  # (slices, rows, columns) of the output
    failed: dict[int, str]  # by slice of the input
    maps: dict[str, np.ndarray]  # of trust, float32, NaN where failed; the residual has the input's voxels


@dataclass(frozen=True)
class _Piece:
    """One tile of one slice on its way; its image is None if the slice cannot be read."""

    block: Block
    z: int
    tile: Tile
    image: np.ndarray | None  # what the tile reads; with trust, up to 3 px more at its ends
    failed: dict[int, str]  # of the block, complete when its first piece comes
    is_last: bool  # of the block


def stream(
    blocks: Iterable[Block],
    source: SourceVolume,
    engine: Engine,
    plan: Plan,
    grey: Normalisation,
    dtype: np.dtype,
    write: Callable[[FinishedBlock], None],
    *,
    outcome: Outcome,
    trust: Trust | None = None,
    keep_going: bool = True,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Super-resolve ``blocks`` of ``plan``, handing each to ``write`` in a thread of its own.

    Args:
        dtype: of the output.
        outcome: what was done is added here, also where an error ends it.
        trust: makes the maps of trust too; nine runs of the network instead of one.
        keep_going: whether a slice that cannot be read, or has NaN pixels, becomes zeros and a reason, or an error.
        progress: called after each tile with the number of LR pixels it owns.

    Raises:
        VolumeError: a slice cannot be read (unless ``keep_going``), or the output not be written.
        TileTooLarge: the engine ran out of memory; blocks that were handed over before are unharmed.
        BackendError: the engine returned something that is no image.
    """
    start = time.perf_counter()
    threads = max(1, min(4, (os.cpu_count() or 1) // 2))
    with ThreadPoolExecutor(threads, "emsr-grey") as pool:
        filling = _Filling(plan, grey, dtype, write, outcome, pool, trust)
        behind = Behind(filling.take, _TILES_WAITING)
        try:
            with ahead(_read(blocks, source, plan, grey, trust, keep_going=keep_going), _TILES_WAITING) as pieces:
                for piece in pieces:
                    result: np.ndarray | None = None
                    maps: dict[str, np.ndarray] = {}
                    if piece.image is not None:
                        before = time.perf_counter()
                        result, maps = _results(engine, piece.image, piece.tile, piece.z, trust)
                        outcome.network_s += time.perf_counter() - before
                    behind.give((piece, result, maps))
                    if progress is not None:
                        progress(piece.tile.pixels)
            behind.finish()
        finally:
            behind.stop()
            outcome.seconds += time.perf_counter() - start


def _read(
    blocks: Iterable[Block],
    source: SourceVolume,
    plan: Plan,
    grey: Normalisation,
    trust: Trust | None,
    *,
    keep_going: bool,
) -> Iterator[_Piece]:
    def to_read(tile: Tile) -> tuple[slice, slice]:
        if trust is None:
            return tile.read
        rows, cols = (
            slice(part.start, aligned_stop(part.stop, side))
            for part, side in zip(tile.read, plan.shape[1:], strict=True)
        )
        return rows, cols

    for block in blocks:
        tiles = list(plan.tiles(block))
        (first_rows, first_cols), (last_rows, last_cols) = to_read(tiles[0]), to_read(tiles[-1])
        rows, cols = slice(first_rows.start, last_rows.stop), slice(first_cols.start, last_cols.stop)
        failed: dict[int, str] = {}
        slices: dict[int, np.ndarray] = {}
        for z in range(block.own[0].start, block.own[0].stop):
            try:
                slices[z] = source.read(z, rows, cols)
                check_finite(slices[z], z, source)
            except VolumeError as error:
                if not keep_going:
                    raise
                slices.pop(z, None)
                failed[z] = str(error)
        for z in range(block.own[0].start, block.own[0].stop):
            image = slices.pop(z, None)
            for number, tile in enumerate(tiles, 1):
                part = None
                if image is not None:
                    down, across = to_read(tile)
                    part = grey.to_model(image[_shifted(down, rows), _shifted(across, cols)])
                is_last = z + 1 == block.own[0].stop and number == len(tiles)
                yield _Piece(block, z, tile, part, failed, is_last)


def _shifted(inner: slice, outer: slice) -> slice:
    return slice(inner.start - outer.start, inner.stop - outer.start)


class _Filling:
    """The block being filled, tile by tile, behind the network."""

    def __init__(
        self,
        plan: Plan,
        grey: Normalisation,
        dtype: np.dtype,
        write: Callable[[FinishedBlock], None],
        outcome: Outcome,
        pool: ThreadPoolExecutor,
        trust: Trust | None,
    ) -> None:
        self._plan, self._grey, self._dtype = plan, grey, dtype
        self._write, self._outcome, self._pool = write, outcome, pool
        self._names = trust.names if trust else ()
        self._pixels: np.ndarray | None = None
        self._maps: dict[str, np.ndarray] = {}

    def take(self, item: tuple[_Piece, np.ndarray | None, dict[str, np.ndarray]]) -> None:
        """Put a tile's pixels into its block; write the block if it was the last."""
        piece, result, maps = item
        block, scale = piece.block, self._plan.scale
        if self._pixels is None:
            self._pixels = np.zeros([part.stop - part.start for part in block.output], self._dtype)
            for name in self._names:
                voxels = block.own if name == RESIDUAL else block.output
                self._maps[name] = np.full([part.stop - part.start for part in voxels], np.nan, np.float32)
        z = piece.z - block.own[0].start
        if result is not None:
            self._map_back(result, self._pixels[(z, *self._place(piece, scale))])
        for name, values in maps.items():
            if name == RESIDUAL:
                self._maps[name][(z, *self._place(piece, 1))] = rounded(values)
            else:
                grey_values = values * np.float32(self._grey.high - self._grey.low)
                self._maps[name][(z, *self._place(piece, scale))] = rounded(grey_values)
        if piece.is_last:
            pixels, self._pixels = self._pixels, None
            self._write(FinishedBlock(block, pixels, piece.failed, dict(self._maps)))
            self._outcome.blocks += 1
            self._outcome.lr_pixels += block.lr_pixels
            self._outcome.failed |= piece.failed

    @staticmethod
    def _place(piece: _Piece, scale: int) -> tuple[slice, slice]:
        """Return where the piece's pixels lie in its block, in pixels of an image magnified by ``scale``."""
        rows, cols = (
            slice((tile.start - own.start) * scale, (tile.stop - own.start) * scale)
            for tile, own in zip(piece.tile.own, piece.block.own[1:], strict=True)
        )
        return rows, cols

    def _map_back(self, result: np.ndarray, place: np.ndarray) -> None:
        height = max(1, _STRIP_PX // result.shape[1])
        strips = [slice(top, top + height) for top in range(0, len(result), height)]

        def one(strip: slice) -> int:
            place[strip], clipped = self._grey.from_model(result[strip], self._dtype)
            return clipped

        self._outcome.clipped += sum(self._pool.map(one, strips))


def _results(
    engine: Engine, image: np.ndarray, part: Tile, z: int, trust: Trust | None
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the HR pixels that tile ``part`` owns, and its maps of trust, from ``image``, the LR pixels it reads."""
    rows, cols = part.read
    # with trust more was read; the result itself must not depend on that
    result = _run(engine, image[: rows.stop - rows.start, : cols.stop - cols.start], part, z)
    maps: dict[str, np.ndarray] = {}
    if trust is not None:
        maps = trust.maps(
            lambda other: _run(engine, other, part, z),
            image,
            result,
            part.own_in_read(),
            (z, rows.start, cols.start),
            engine.scale,
        )
    return result[part.own_in_read(engine.scale)], maps


def _run(engine: Engine, image: np.ndarray, part: Tile, z: int) -> np.ndarray:
    """Return all HR pixels that the network makes of ``image``; ``part`` and ``z`` are for messages."""
    height, width = image.shape
    place = f"slice {z}, rows {part.own[0].start}:{part.own[0].stop}, columns {part.own[1].start}:{part.own[1].stop}"
    try:
        result = engine.run(image[None, None])
    except (MemoryError, RuntimeError) as error:
        # torch has its own class on a GPU and a plain RuntimeError on a CPU
        if isinstance(error, MemoryError) or "memory" in str(error).lower():
            raise TileTooLarge(
                f"{engine.name} ran out of memory on a tile of {height}x{width} px ({place}); give a smaller --tile"
            ) from error
        raise
    expected = (1, 1, height * engine.scale, width * engine.scale)
    if result.shape != expected:
        raise BackendError(f"{engine.name} returned shape {result.shape} for {place}, expected {expected}")
    image_out: np.ndarray = result[0, 0]
    if not np.isfinite(image_out).all():
        bad = np.count_nonzero(~np.isfinite(image_out))
        raise BackendError(
            f"{engine.name} returned {bad} NaN or infinite pixel(s) for {place}; "
            "check the model file, or run it with --device cpu"
        )
    return image_out

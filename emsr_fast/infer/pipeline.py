"""The stream: blocks are read and normalised ahead of the network, and mapped back, encoded and written behind it.

Held at any time: one block's input, a few tiles on either side of the network, one block of output being filled and one
being encoded. None of it grows with the volume.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from emsr_fast.engine.base import Engine, GreyTiles
from emsr_fast.engine.in_flight import in_flight
from emsr_fast.errors import VolumeError
from emsr_fast.infer.background import BackgroundConsumer, produced_ahead
from emsr_fast.infer.engine_feed import EngineFeed, grey_of
from emsr_fast.infer.plan import Block, Plan
from emsr_fast.infer.stopped import StartedBlock, StoppedBlocks
from emsr_fast.infer.tiles import Tile
from emsr_fast.io.intensity import Normalisation, check_grey_values
from emsr_fast.io.volume import SourceVolume
from emsr_fast.trust.maps import RESIDUAL, Trust, aligned_stop, rounded

_TILES_WAITING = 3  # before the network, and behind it
_STRIP_PX = 2**19  # HR pixels mapped back at once: float64 needs eight bytes for each, several times


@dataclass
class Statistics:
    """What a run over blocks did."""

    blocks: int = 0
    lr_pixels: int = 0  # of the input, each counted once; not those that an earlier run had done
    bounded: int = 0  # of the blocks, how many LR pixels were beyond what the network is given
    clipped: int = 0  # HR pixels outside the range of an integer dtype
    network_s: float = 0.0  # inside the engine, or waiting for it
    seconds: float = 0.0  # of the streams, those of several workers added up
    failed: dict[int, str] = field(default_factory=dict)  # slice of the input: why it could not be done

    def add(self, other: Statistics) -> None:
        """Count what another worker did at the same time."""
        self.blocks += other.blocks
        self.lr_pixels += other.lr_pixels
        self.bounded += other.bounded
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
    bounded: int  # LR pixels of the other slices that were beyond what the network is given
    maps: dict[str, np.ndarray]  # of trust, float32, NaN where failed; the residual has the input's voxels


@dataclass(frozen=True)
class _Piece:
    """One tile of one slice on its way; its image is None if the slice cannot be read, or once the engine has it."""

    block: Block
    z: int
    tile: Tile
    number: int  # of the tile in its slice
    image: np.ndarray | None  # what the tile reads, for the engine; with trust, up to 3 px more at its ends
    readable: bool  # whether the slice is
    started: StartedBlock | None  # what an earlier run had done of the block
    failed: dict[int, str]  # of the block, complete when its first piece comes
    bounded: int  # of the slice's LR pixels that the block owns, those beyond what the network is given
    is_last: bool  # of the block


# a piece, its HR pixels (float32 in the model's range, or grey values), its maps of trust
_Result = tuple[_Piece, np.ndarray | GreyTiles | None, dict[str, np.ndarray]]


def stream(
    blocks: Iterable[Block],
    source: SourceVolume,
    engine: Engine,
    plan: Plan,
    grey: Normalisation,
    dtype: np.dtype,
    write: Callable[[FinishedBlock], None],
    *,
    statistics: Statistics,
    trust: Trust | None = None,
    stopped: StoppedBlocks | None = None,
    keep_going: bool = True,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Super-resolve ``blocks`` of ``plan``, handing each to ``write`` in a thread of its own.

    Args:
        dtype: of the output.
        statistics: what was done is added here, also where an error ends it.
        trust: makes the maps of trust too; nine runs of the network instead of one.
        stopped: what earlier runs had done of the blocks is taken from here, and where a stop (Ctrl-C, a signal;
            no error) ends this one, the tiles that are done are kept here.
        keep_going: whether a slice that cannot be read, or has NaN or no-data pixels, becomes zeros and a reason, or an
            error.
        progress: called after each tile with the number of LR pixels it owns.

    Raises:
        VolumeError: a slice cannot be read (unless ``keep_going``), or the output not be written.
        TileTooLarge: the engine ran out of memory; blocks that were handed over before are unharmed.
        BackendError: the engine returned something that is no image.
    """
    start = time.perf_counter()
    threads = max(1, min(4, (os.cpu_count() or 1) // 2))
    for_engine = grey_of(engine, grey, source.dtype, dtype, trust)
    feed = EngineFeed(engine, grey, for_engine, trust)

    def submit(piece: _Piece) -> tuple[_Piece, Any]:
        if piece.image is None:
            return piece, None
        ticket = feed.submit(piece.image, piece.tile, piece.z)
        return replace(piece, image=None), ticket

    def collect(submitted: tuple[_Piece, Any]) -> _Result:
        piece, ticket = submitted
        return piece, *((None, {}) if ticket is None else feed.collect(ticket, piece.tile, piece.z))

    def to_engine(image: np.ndarray) -> np.ndarray:
        return grey.to_model(image) if for_engine is None else image

    with ThreadPoolExecutor(threads, "emsr-grey") as pool:
        builder = _BlockBuilder(plan, grey, dtype, write, statistics, pool, trust)
        behind = BackgroundConsumer(builder.take, _TILES_WAITING)
        reading = _read(blocks, source, plan, grey, to_engine, trust, stopped, keep_going=keep_going)
        try:
            with produced_ahead(reading, _TILES_WAITING) as pieces:
                try:
                    for result in in_flight(pieces, submit, collect, feed.depth):
                        behind.give(result)
                        if progress is not None:
                            progress(result[0].tile.pixels)
                    behind.finish()
                except Exception:
                    raise
                except BaseException:
                    # before the reader is waited for, which may be slow
                    if stopped is not None:
                        behind.finish()
                        builder.keep(stopped)
                    raise
        finally:
            behind.stop()
            statistics.network_s += feed.seconds
            statistics.seconds += time.perf_counter() - start


def _read(
    blocks: Iterable[Block],
    source: SourceVolume,
    plan: Plan,
    grey: Normalisation,
    to_engine: Callable[[np.ndarray], np.ndarray],
    trust: Trust | None,
    stopped: StoppedBlocks | None,
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
        started = None if stopped is None else stopped.load(block.index, plan)
        depth = block.own[0].stop - block.own[0].start
        # a copy: what is done is marked in the other while it becomes more
        done = np.zeros((depth, len(tiles)), bool) if started is None else started.done.copy()
        to_do = [z for z in range(block.own[0].start, block.own[0].stop) if not done[z - block.own[0].start].all()]
        (first_rows, first_cols), (last_rows, last_cols) = to_read(tiles[0]), to_read(tiles[-1])
        rows, cols = slice(first_rows.start, last_rows.stop), slice(first_cols.start, last_cols.stop)
        failed: dict[int, str] = {}
        slices: dict[int, np.ndarray] = {}
        for z in to_do:
            try:
                slices[z] = source.read(z, rows, cols)
                check_grey_values(slices[z], z, source, grey)
            except VolumeError as error:
                if not keep_going:
                    raise
                slices.pop(z, None)
                failed[z] = str(error)
        # tiles and blocks read their neighbours' pixels too: only what the block owns is counted
        own = _shifted(block.own[1], rows), _shifted(block.own[2], cols)
        for z in to_do:
            image = slices.pop(z, None)
            bounded = 0 if image is None else grey.count_beyond(image[own])
            for number, tile in enumerate(tiles):
                if done[z - block.own[0].start, number]:
                    continue
                part = None
                if image is not None:
                    down, across = to_read(tile)
                    part = to_engine(image[_shifted(down, rows), _shifted(across, cols)])
                is_last = z + 1 == block.own[0].stop and number + 1 == len(tiles)
                yield _Piece(block, z, tile, number, part, image is not None, started, failed, bounded, is_last)


def _shifted(inner: slice, outer: slice) -> slice:
    return slice(inner.start - outer.start, inner.stop - outer.start)


class _BlockBuilder:
    """The block being filled, tile by tile, behind the network."""

    def __init__(
        self,
        plan: Plan,
        grey: Normalisation,
        dtype: np.dtype,
        write: Callable[[FinishedBlock], None],
        statistics: Statistics,
        pool: ThreadPoolExecutor,
        trust: Trust | None,
    ) -> None:
        self._plan, self._grey, self._dtype = plan, grey, dtype
        self._write, self._statistics, self._pool = write, statistics, pool
        self._names = trust.names if trust else ()
        self._started: StartedBlock | None = None

    def take(self, item: _Result) -> None:
        """Put a tile's pixels into its block; write the block if it was the last."""
        piece, result, maps = item
        block, scale = piece.block, self._plan.scale
        if self._started is None:
            self._started = piece.started or self._empty(block)
        pixels, maps_so_far = self._started.pixels, self._started.maps
        z = piece.z - block.own[0].start
        place = pixels[(z, *self._place(piece, scale))]
        if isinstance(result, GreyTiles):
            place[...] = result.pixels[0, 0]
            self._statistics.clipped += result.clipped
        elif result is not None:
            self._map_back(result, place)
        for name, values in maps.items():
            if name == RESIDUAL:
                maps_so_far[name][(z, *self._place(piece, 1))] = rounded(values)
            else:
                grey_values = values * np.float32(self._grey.high - self._grey.low)
                maps_so_far[name][(z, *self._place(piece, scale))] = rounded(grey_values)
        self._statistics.lr_pixels += piece.tile.pixels
        self._started.bounded[z] = piece.bounded
        if piece.is_last:
            bounded = int(self._started.bounded.sum())
            self._started = None
            self._write(FinishedBlock(block, pixels, piece.failed, bounded, maps_so_far))
            self._statistics.blocks += 1
            self._statistics.bounded += bounded
            self._statistics.failed |= piece.failed
        else:
            # what cannot be read today is tried again
            self._started.done[z, piece.number] = piece.readable

    def keep(self, stopped: StoppedBlocks) -> None:
        """Keep what is done of the block being filled, if there is one."""
        if self._started is not None and self._started.done.any():
            stopped.save(self._started, self._plan)

    def _empty(self, block: Block) -> StartedBlock:
        depth = block.own[0].stop - block.own[0].start
        done = np.zeros((depth, sum(1 for _ in self._plan.tiles(block))), bool)
        maps = {}
        for name in self._names:
            voxels = block.own if name == RESIDUAL else block.output
            maps[name] = np.full([part.stop - part.start for part in voxels], np.nan, np.float32)
        pixels = np.zeros([part.stop - part.start for part in block.output], self._dtype)
        return StartedBlock(block.index, done, np.zeros(depth, np.int64), pixels, maps)

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

        self._statistics.clipped += sum(self._pool.map(one, strips))

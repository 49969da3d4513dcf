"""The stream: one thread reads and normalises ahead of the network, another maps back and writes behind it.

Memory holds one block's input, a few tiles on either side of the network, one block of output being filled and one
being encoded. It does not grow with the volume.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from emsr_fast.engine.base import Engine
from emsr_fast.engine.in_flight import in_flight
from emsr_fast.errors import VolumeError
from emsr_fast.infer.background import BackgroundConsumer, produced_ahead
from emsr_fast.infer.block_builder import BlockBuilder, FinishedBlock, Piece, Result
from emsr_fast.infer.engine_feed import EngineFeed, grey_of
from emsr_fast.infer.padding import REACH, context_of, may_have_padding, padding_of
from emsr_fast.infer.plan import Block, Plan
from emsr_fast.infer.statistics import Statistics
from emsr_fast.infer.stopped import StoppedBlocks
from emsr_fast.infer.tiles import Tile
from emsr_fast.io.intensity import Normalisation, check_grey_values
from emsr_fast.io.volume import SourceVolume
from emsr_fast.trust.maps import Trust, aligned_stop

_TILES_WAITING = 3  # before the network, and behind it


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
        statistics: what was done is added here, also if an error ends the stream.
        trust: makes the maps of trust too; nine runs of the network instead of one.
        stopped: holds the tiles that earlier, stopped runs had done. If Ctrl-C or a signal ends this stream, its own
            finished tiles are saved here; after an error they are not.
        keep_going: what to do if a slice cannot be read, or has NaN or no-data pixels: True writes zeros and notes
            the reason, False raises.
        progress: called after each tile with the number of LR pixels it owns.

    Raises:
        VolumeError: a slice cannot be read (unless ``keep_going``), or the output cannot be written.
        TileTooLarge: the engine ran out of memory; blocks that were handed over before are unharmed.
        BackendError: the engine returned something that is no image.
    """
    start = time.perf_counter()
    threads = max(1, min(4, (os.cpu_count() or 1) // 2))
    for_engine = grey_of(engine, grey, source.dtype, dtype, trust)
    feed = EngineFeed(engine, grey, for_engine, trust)

    def submit(piece: Piece) -> tuple[Piece, Any]:
        if piece.image is None:
            return piece, None
        ticket = feed.submit(piece.image, piece.tile, piece.z)
        return replace(piece, image=None), ticket

    def collect(submitted: tuple[Piece, Any]) -> Result:
        piece, ticket = submitted
        return piece, *((None, {}) if ticket is None else feed.collect(ticket, piece.tile, piece.z))

    def to_engine(image: np.ndarray) -> np.ndarray:
        return grey.to_model(image) if for_engine is None else image

    with ThreadPoolExecutor(threads, "emsr-grey") as pool:
        builder = BlockBuilder(plan, grey, dtype, write, statistics, pool, trust)
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
) -> Iterator[Piece]:
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
        paddings: dict[int, np.ndarray | None] = {}
        for z in to_do:
            try:
                slices[z] = source.read(z, rows, cols)
                check_grey_values(slices[z], z, source, grey)
                paddings[z] = _padding(source, z, slices[z], block, plan.halo)
            except VolumeError as error:
                if not keep_going:
                    raise
                slices.pop(z, None)
                failed[z] = str(error)
        # tiles and blocks read their neighbours' pixels too: only what the block owns is counted
        own = _shifted(block.own[1], rows), _shifted(block.own[2], cols)
        for z in to_do:
            image = slices.pop(z, None)
            padding = paddings.pop(z, None)
            bounded = 0
            if image is not None:
                bounded = grey.count_beyond(image[own] if padding is None else image[own][~padding])
            for number, tile in enumerate(tiles):
                if done[z - block.own[0].start, number]:
                    continue
                down, across = (_shifted(part, owned) for part, owned in zip(tile.own, block.own[1:], strict=True))
                black = None if padding is None or not padding[down, across].any() else padding[down, across]
                part = None
                if image is not None and (black is None or not black.all()):
                    down, across = to_read(tile)
                    part = to_engine(image[_shifted(down, rows), _shifted(across, cols)])
                is_last = z + 1 == block.own[0].stop and number + 1 == len(tiles)
                yield Piece(block, z, tile, number, part, image is not None, started, failed, bounded, is_last, black)


def _padding(source: SourceVolume, z: int, image: np.ndarray, block: Block, halo: int) -> np.ndarray | None:
    """Return which pixels that ``block`` owns of slice ``z`` are padding, None if none are.

    Args:
        image: what was read for the tiles, with their halo.
    """
    # most volumes have none, and are not read a second time for that
    if min(source.shape[1:]) <= REACH or (halo >= REACH and not may_have_padding(image)):
        return None
    own = block.own[1:]
    seen = context_of(own, source.shape[1:])
    return padding_of(source.read(z, *seen), seen, own)


def _shifted(inner: slice, outer: slice) -> slice:
    return slice(inner.start - outer.start, inner.stop - outer.start)

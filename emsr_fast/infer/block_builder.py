"""Blocks are built behind the network: tiles become grey values, and a full block goes to the writer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from emsr_fast.engine.base import GreyTiles
from emsr_fast.infer.plan import Block, Plan
from emsr_fast.infer.statistics import Statistics
from emsr_fast.infer.stopped import StartedBlock, StoppedBlocks
from emsr_fast.infer.tiles import Tile
from emsr_fast.io.intensity import Normalisation
from emsr_fast.trust.maps import RESIDUAL, Trust, rounded

_STRIP_PX = 2**19  # HR pixels mapped back at once: float64 needs eight bytes for each, several times


@dataclass(frozen=True)
class FinishedBlock:
    """The pixels of a block. A slice that could not be done is 0 in ``pixels`` and has its reason in ``failed``."""

    block: Block
    pixels: np.ndarray  # (slices, rows, columns) of the output
    failed: dict[int, str]  # by slice of the input
    bounded: int  # LR pixels of the other slices that were beyond what the network is given
    maps: dict[str, np.ndarray]  # of trust, float32, NaN where failed; the residual has the input's voxels


@dataclass(frozen=True)
class Piece:
    """One tile of one slice.

    ``image`` is None if the slice cannot be read, if the tile is all padding, and after the engine has taken it.
    """

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
    padding: np.ndarray | None = None  # which of the tile's own pixels are, bool; None if none are


# a piece, its HR pixels (float32 in the model's range, or grey values), its maps of trust
Result = tuple[Piece, np.ndarray | GreyTiles | None, dict[str, np.ndarray]]


class BlockBuilder:
    """Fills one block at a time, tile by tile."""

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

    def take(self, item: Result) -> None:
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
        if piece.padding is not None:
            self._statistics.padding += int(np.count_nonzero(piece.padding))
            self._blacken(piece, place, {name: values[z] for name, values in maps_so_far.items()})
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
    def _place(piece: Piece, scale: int) -> tuple[slice, slice]:
        """Return where the piece's pixels lie in its block, in pixels of an image magnified by ``scale``."""
        rows, cols = (
            slice((tile.start - own.start) * scale, (tile.stop - own.start) * scale)
            for tile, own in zip(piece.tile.own, piece.block.own[1:], strict=True)
        )
        return rows, cols

    def _blacken(self, piece: Piece, place: np.ndarray, maps: Mapping[str, np.ndarray]) -> None:
        """Set padding to 0, in the tile's HR pixels ``place`` and in the block's maps of trust: nothing was guessed."""
        assert piece.padding is not None
        scale = self._plan.scale
        magnified = piece.padding.repeat(scale, 0).repeat(scale, 1)
        place[magnified] = 0
        for name, values in maps.items():
            factor, padding = (1, piece.padding) if name == RESIDUAL else (scale, magnified)
            values[self._place(piece, factor)][padding] = 0

    def _map_back(self, result: np.ndarray, place: np.ndarray) -> None:
        height = max(1, _STRIP_PX // result.shape[1])
        strips = [slice(top, top + height) for top in range(0, len(result), height)]

        def one(strip: slice) -> int:
            place[strip], clipped = self._grey.from_model(result[strip], self._dtype)
            return clipped

        self._statistics.clipped += sum(self._pool.map(one, strips))

"""The plan of a run: which part of the input, cut into which blocks and tiles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from emsr_fast.errors import UsageError
from emsr_fast.infer.gpu_tile import Gpu, gpu_tile
from emsr_fast.infer.tiles import (
    ALIGNMENT,
    Tile,
    automatic_tile,
    check_tiling,
    grown,
    grown_sides,
    grown_span,
    spans_within,
    tiles_within,
)
from emsr_fast.io.selection import ZYX, Span
from emsr_fast.io.volume import SourceVolume

DEFAULT_HALO = 32
DEFAULT_MEMORY = 1_500_000_000
_MOST_SLICES = 16  # of a block: as deep as chunks should be that are also looked at slice by slice
_LEAST_HALVED = 32  # px; what runs out of memory on this has another trouble
_LONGEST_OF_ONE_SHAPE = 8192  # px, of an automatic tile; engines that are built for one shape take no longer ones
_LEAST_SIDE = 256  # of a block, LR px, where tiles are smaller: files should not be
# shares of the memory: a block is held while it fills, again while it is encoded, and its bytes; all with room to spare
_NETWORK_SHARE, _BLOCK_SHARE = 0.5, 1 / 16
# and, where the memory is given, what the source holds of decoded chunks: at least, and at most
_USED_SHARE = 7 / 8  # of the rest; threads keep memory that was freed
_LEAST_READING_SHARE, _MOST_READING_SHARE = 1 / 8, 1 / 2


@dataclass(frozen=True)
class Block:
    """The voxels that one task computes: one shard of the output's full-resolution level."""

    index: ZYX  # in the grid of blocks, which is the grid of shards
    own: tuple[slice, slice, slice]  # slices, rows, columns in voxels of the input
    output: tuple[slice, slice, slice]  # the same in voxels of the output

    @property
    def lr_pixels(self) -> int:
        """LR pixels owned, all slices together."""
        z, y, x = (part.stop - part.start for part in self.own)
        return int(z * y * x)


@dataclass(frozen=True)
class Plan:
    """The region of the input, and its blocks and tiles. Every worker and every resumed run has the same plan."""

    shape: ZYX  # of the input
    region: tuple[Span, Span, Span]  # slices, rows, columns of the input to do
    scale: int
    tile: tuple[int, int]  # rows and columns that a tile owns, LR px
    halo: int
    block: ZYX  # slices, rows, columns that a block owns
    tile_is_given: bool  # by the user, so never to be changed
    equal_reads: bool = False  # for an engine that takes few shapes: every tile reads as much as the largest, if it can

    @property
    def output_shape(self) -> ZYX:
        """(Z, scale * Y, scale * X) of the region."""
        z, y, x = (stop - start for start, stop in self.region)
        return (z, y * self.scale, x * self.scale)

    @property
    def shard(self) -> ZYX:
        """Voxels of a block in the output."""
        z, y, x = self.block
        return (z, y * self.scale, x * self.scale)

    @property
    def grid(self) -> ZYX:
        """How many blocks there are along each axis."""
        z, y, x = (-(-(stop - start) // side) for (start, stop), side in zip(self.region, self.block, strict=True))
        return (z, y, x)

    def __len__(self) -> int:
        z, y, x = self.grid
        return z * y * x

    def block_at(self, number: int) -> Block:
        """Return block ``number`` of ``range(len(plan))``: columns first, then rows, then slices."""
        _, rows, cols = self.grid
        index = (number // (rows * cols), number // cols % rows, number % cols)
        own, output = [], []
        for at, side, (start, stop), factor in zip(
            index, self.block, self.region, (1, self.scale, self.scale), strict=True
        ):
            first, last = at * side, min((at + 1) * side, stop - start)
            own.append(slice(start + first, start + last))
            output.append(slice(first * factor, last * factor))
        return Block(index, (own[0], own[1], own[2]), (output[0], output[1], output[2]))

    def number_of(self, index: ZYX) -> int:
        """Return the number of the block at ``index`` of the grid."""
        _, rows, cols = self.grid
        return (index[0] * rows + index[1]) * cols + index[2]

    def depth_at(self, index: ZYX) -> int:
        """Return how many slices the block at ``index`` has."""
        own = self.block_at(self.number_of(index)).own[0]
        return int(own.stop - own.start)

    def tiles(self, block: Block) -> Iterator[Tile]:
        """Yield the tiles of each slice of ``block``, in LR pixels of the slice."""
        _, rows, cols = block.own
        for tile in tiles_within(rows, cols, self.tile, self.halo, self.shape[1:]):
            yield grown(tile, self._most_read, self.shape[1:]) if self.equal_reads else tile

    def reads_along(self, axis: int) -> Iterator[tuple[int, int]]:
        """Yield how many pixels tiles read along rows (axis 1) or columns (2) of the region, and how many tiles do.

        Blocks far from both ends are alike, so one stands for all of them.
        """
        count, near = self.grid[axis], self.halo // self.block[axis] + 3
        numbers = [(at, 1) for at in range(min(near, count))]
        if count > 2 * near:
            numbers.append((near, count - 2 * near))
        numbers += [(at, 1) for at in range(max(count - near, near), count)]
        for at, alike in numbers:
            index = (0, at, 0) if axis == 1 else (0, 0, at)
            own = self.block_at(self.number_of(index)).own[axis]
            for span, _ in spans_within(own, self.tile[axis - 1], self.halo, self.shape[axis]):
                read = grown_span(span, self._most_read[axis - 1], self.shape[axis]) if self.equal_reads else span
                yield read.stop - read.start, alike

    @property
    def _most_read(self) -> tuple[int, int]:
        # what is read starts on a multiple of 4, which a region may not
        rows, cols = (
            side + 2 * self.halo + (ALIGNMENT if start % ALIGNMENT else 0)
            for side, (start, _) in zip(self.tile, self.region[1:], strict=True)
        )
        return rows, cols

    @property
    def read_sizes(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """The least and most rows, and columns, that a tile reads where ``equal_reads``."""
        rows, cols = (grown_sides(length, most) for length, most in zip(self.shape[1:], self._most_read, strict=True))
        return rows, cols

    @property
    def lr_pixels(self) -> int:
        """LR pixels of the region."""
        z, y, x = (stop - start for start, stop in self.region)
        return z * y * x

    @property
    def largest_read_px(self) -> int:
        """LR pixels that the largest tile reads, its halo included."""
        _, height, width = self.shape
        rows, cols = self.tile
        return min(rows + 2 * self.halo, height) * min(cols + 2 * self.halo, width)

    def halved(self) -> Plan:
        """Return the plan with tiles of half the side and the same blocks; itself where that is not possible."""
        if self.equal_reads:
            return self  # the engine is made for these
        rows, cols = (min(side, max(side // 2 // ALIGNMENT * ALIGNMENT, _LEAST_HALVED)) for side in self.tile)
        return replace(self, tile=(rows, cols))


def make_plan(
    shape: ZYX,
    region: tuple[Span, Span, Span],
    *,
    scale: int,
    tile: int | None,
    halo: int,
    itemsize: int,
    bytes_per_px: int,
    max_memory: int | None = None,
    reading: int = 0,
    equal_reads: bool = False,
    gpu: Gpu | None = None,
) -> Plan:
    """Return a plan whose tiles and blocks fit into ``max_memory``.

    Args:
        tile: side in LR pixels, a multiple of 4; the best one is chosen if None.
        itemsize: bytes of an output voxel.
        bytes_per_px: the network's peak memory, in bytes per LR pixel of a tile.
        max_memory: bytes, for everything but the loaded model; if None, 1.5 GB, or what the given tile needs.
        reading: bytes of ``max_memory`` that the source needs, see ``limit_reading``.
        equal_reads: see ``Plan``.
        gpu: the GPU to choose the tile for; None for a CPU or another engine.

    Raises:
        UsageError: the tile given, or the smallest sensible one, needs more memory than allowed.
    """
    (first, last), (top, bottom), (left, right) = region
    memory = DEFAULT_MEMORY if max_memory is None else max_memory
    used = memory if max_memory is None else (memory - reading) * _USED_SHARE
    largest = int(used * _NETWORK_SHARE / bytes_per_px)
    rows, cols = bottom - top, right - left
    if tile is not None:
        sides = tile, tile
    else:
        sides = gpu_tile(rows, cols, halo, largest, gpu) if gpu else automatic_tile(rows, cols, halo, largest)
        if equal_reads:
            sides = min(sides[0], _LONGEST_OF_ONE_SHAPE), min(sides[1], _LONGEST_OF_ONE_SHAPE)
    for side in sides:
        check_tiling(side, halo)
    block = [last - first, rows, cols]
    for axis, side in enumerate(sides, 1):
        block[axis] = min(block[axis], side * max(1, _LEAST_SIDE // side))
    slice_bytes = block[1] * block[2] * scale * scale * itemsize
    fitting = int(memory * _BLOCK_SHARE) // slice_bytes
    # a power of two, so that shards of different runs are alike
    block[0] = min(block[0], _MOST_SLICES, 1 << max(fitting.bit_length() - 1, 0))
    plan = Plan(shape, region, scale, sides, halo, (block[0], block[1], block[2]), tile is not None, equal_reads)
    if max_memory is not None and plan.largest_read_px > largest:
        needed = plan.largest_read_px * bytes_per_px / _NETWORK_SHARE / _USED_SHARE + reading
        advice = "a smaller `tile` or a larger `max_memory`" if tile is not None else "a larger `max_memory`"
        raise UsageError(
            f"tiles of {sides[0]}x{sides[1]} px with halo {halo} need about {needed / 1e6:.0f} MB, "
            f"and `max_memory` is {max_memory / 1e6:.0f} MB; give {advice}"
        )
    return plan


def limit_reading(source: SourceVolume, max_memory: int | None) -> int:
    """Make ``source`` hold no more than its share of ``max_memory``; return how many bytes it may hold.

    Raises:
        UsageError: it needs more than half of it, for one of its chunks.
    """
    if max_memory is None:
        return 0
    held = source.limit_memory(int(max_memory * _LEAST_READING_SHARE))
    if held > max_memory * _MOST_READING_SHARE:
        chunks = " x ".join(map(str, source.info.chunks))
        raise UsageError(
            f"reading {source.info.path}, whose chunks are {chunks}, takes about {held / 1e6:.0f} MB, and `max_memory` "
            f"is {max_memory / 1e6:.0f} MB; give at least {held / _MOST_READING_SHARE / 1e6:.0f} MB"
        )
    return held

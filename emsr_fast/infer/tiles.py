"""How a slice is cut into tiles: the pixels that each tile reads, and those that it owns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from emsr_fast.errors import UsageError

# the network gives the same result for a shifted image only if the shift is a multiple of its window side
ALIGNMENT = 4
Side = TypeVar("Side", int, np.ndarray)
# smaller tiles cost more time per pixel, and their halos many times their own pixels
_SMALLEST_AUTOMATIC = 64


@dataclass(frozen=True)
class Tile:
    """One tile of a slice, in LR pixels."""

    read: tuple[slice, slice]  # rows, columns: the owned part plus its halo, clipped to the slice
    own: tuple[slice, slice]  # the owned parts of all tiles cover the slice exactly once

    def own_in_read(self, scale: int = 1) -> tuple[slice, slice]:
        """Return where the owned part lies in what was read, in pixels of an image magnified by ``scale``."""
        rows, cols = (
            slice((own.start - read.start) * scale, (own.stop - read.start) * scale)
            for own, read in zip(self.own, self.read, strict=True)
        )
        return rows, cols

    def own_in_output(self, scale: int) -> tuple[slice, slice]:
        """Return the owned part in HR pixels of the output slice."""
        rows, cols = (slice(own.start * scale, own.stop * scale) for own in self.own)
        return rows, cols

    @property
    def pixels(self) -> int:
        """LR pixels owned."""
        rows, cols = self.own
        return int((rows.stop - rows.start) * (cols.stop - cols.start))


def check_tiling(tile: int, halo: int) -> None:
    """Raise UsageError unless tiles of side ``tile`` with ``halo`` start on multiples of 4 LR pixels."""
    if tile < ALIGNMENT or tile % ALIGNMENT:
        raise UsageError(f"`tile` is {tile} px; give a positive multiple of {ALIGNMENT}, such as 256")
    if halo < 0 or halo % ALIGNMENT:
        raise UsageError(f"`halo` is {halo} px; give 0 or a multiple of {ALIGNMENT}, such as 32")


def tiles_of(height: int, width: int, tile: int, halo: int) -> Iterator[Tile]:
    """Yield the tiles of a slice of (height, width) LR pixels, row by row.

    Args:
        tile: side of what a tile owns; a multiple of 4; the last ones of a row or column own what is left.
        halo: pixels read around it where the slice has them; a multiple of 4.

    Raises:
        UsageError: ``tile`` or ``halo`` is not a multiple of 4.
    """
    yield from tiles_within(slice(0, height), slice(0, width), (tile, tile), halo, (height, width))


def grown(part: Tile, read: tuple[int, int], sides: tuple[int, int]) -> Tile:
    """Return ``part`` grown to read ``read`` (rows, columns) where the slice is large enough, for engines of one shape.

    It grows into the slice, never beyond. Zeros around the image would change the result, because every convolution
    pads by itself. At an end that is no multiple of 4, up to 3 px less are read, so that tiles stay aligned.

    Args:
        read: multiples of 4, at least what ``part`` reads.
        sides: (height, width) of the slice.
    """
    rows, cols = map(grown_span, part.read, read, sides)
    return Tile(read=(rows, cols), own=part.own)


def grown_span(span: slice, most: int, length: int) -> slice:
    """Return what a tile reads along one axis, grown to ``most`` pixels; the arguments are those of ``grown``."""
    if length <= most:
        return slice(0, length)
    last = -(-(length - most) // ALIGNMENT) * ALIGNMENT
    start = min(span.start, last)
    return slice(start, min(start + most, length))


def grown_sides(length: int, most: int) -> tuple[int, int]:
    """Return the least and most pixels along an axis of ``length`` that ``grown`` tiles of at most ``most`` read."""
    most = min(most, length)
    return (most if (length - most) % ALIGNMENT == 0 else most - ALIGNMENT + 1), most


def tiles_within(rows: slice, cols: slice, tile: tuple[int, int], halo: int, sides: tuple[int, int]) -> Iterator[Tile]:
    """Yield the tiles of part of a slice, row by row.

    Args:
        rows, cols: the part, in LR pixels of the slice; it may begin anywhere.
        tile: rows and columns that a tile owns; multiples of 4.
        halo: pixels read around it where the slice has them, beyond the part too.
        sides: (height, width) of the slice.
    """
    for side in tile:
        check_tiling(side, halo)
    for read_rows, own_rows in spans_within(rows, tile[0], halo, sides[0]):
        for read_cols, own_cols in spans_within(cols, tile[1], halo, sides[1]):
            yield Tile(read=(read_rows, read_cols), own=(own_rows, own_cols))


def spans_within(part: slice, tile: int, halo: int, length: int) -> Iterator[tuple[slice, slice]]:
    """Yield what tiles read, and what they own, along one axis of a slice; the arguments are those of tiles_within."""
    for start in range(part.start, part.stop, tile):
        stop = min(start + tile, part.stop)
        # what is read starts on a multiple of 4 of the whole slice, whatever part of it is asked for
        first = max(start - halo, 0) // ALIGNMENT * ALIGNMENT
        yield slice(first, min(stop + halo, length)), slice(start, stop)


def automatic_tile(height: int, width: int, halo: int, largest_read_px: int) -> tuple[int, int]:
    """Return rows and columns of tiles that divide (height, width) evenly at the least cost of halos.

    The network's time per pixel hardly depends on the tile, so the fewest pixels read in all are best.

    Args:
        largest_read_px: what a tile may read, its halo included, in LR pixels; but tiles of 64 px are always allowed.
    """
    choices = []
    for rows in even_divisions(height, longest_side(height, least_read(width, halo), halo, largest_read_px)):
        fitting = even_divisions(width, longest_side(width, min(rows + 2 * halo, height), halo, largest_read_px))
        # the first that fits is the widest, so it has the fewest halos
        if cols := next(fitting, 0):
            choices.append((pixels_read(height, rows, halo) * pixels_read(width, cols, halo), rows, cols))
    return min(choices)[1:] if choices else smallest_tile(height, width)


def smallest_tile(height: int, width: int) -> tuple[int, int]:
    """Return the smallest automatic tile of a slice of (height, width), used where no tile fits the memory."""
    return min(_SMALLEST_AUTOMATIC, _up(height)), min(_SMALLEST_AUTOMATIC, _up(width))


def even_divisions(length: int, most: int | None = None) -> Iterator[int]:
    """Yield tile sides, multiples of 4 from the whole of ``length`` down to 64, that divide it into equal parts.

    Args:
        most: the longest side to yield.
    """
    most = _up(length) if most is None else most // ALIGNMENT * ALIGNMENT
    while most >= min(_SMALLEST_AUTOMATIC, _up(length)):
        # the longest side up to ``most``: that of the fewest parts
        side = _up(-(-length // -(-length // most)))
        if side < min(_SMALLEST_AUTOMATIC, _up(length)):
            return
        yield side
        most = side - ALIGNMENT


def least_read(length: int, halo: int) -> int:
    """Return the fewest pixels along an axis of ``length`` that automatic tiles read."""
    return min(_SMALLEST_AUTOMATIC + 2 * halo, length)


def longest_side(length: int, across: int, halo: int, largest_read_px: int) -> int:
    """Return the longest side, along an axis of ``length``, of a tile that reads ``across`` pixels along the other."""
    return _up(length) if across * length <= largest_read_px else largest_read_px // across - 2 * halo


def pixels_read(length: int, tile: Side, halo: int) -> Side:
    """Return how many pixels along an axis of ``length`` its tiles of side ``tile``, one or many, read in all."""
    return length + 2 * halo * (-(-length // tile) - 1)


def _up(length: int) -> int:
    return -(-length // ALIGNMENT) * ALIGNMENT

"""How a slice is cut into tiles: what each one reads and what it owns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from emsr_fast.errors import UsageError

# the network gives the same result for a shifted image only if the shift is a multiple of its window side
ALIGNMENT = 4


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
        raise UsageError(f"tile is {tile} px; give a positive multiple of {ALIGNMENT}, such as 256")
    if halo < 0 or halo % ALIGNMENT:
        raise UsageError(f"halo is {halo} px; give 0 or a multiple of {ALIGNMENT}, such as 32")


def tiles_of(height: int, width: int, tile: int, halo: int) -> Iterator[Tile]:
    """Yield the tiles of a slice of (height, width) LR pixels, row by row.

    Args:
        tile: side of what a tile owns; a multiple of 4; the last ones of a row or column own what is left.
        halo: pixels read around it where the slice has them; a multiple of 4.

    Raises:
        UsageError: ``tile`` or ``halo`` is not a multiple of 4.
    """
    check_tiling(tile, halo)
    for rows in _spans(height, tile, halo):
        for cols in _spans(width, tile, halo):
            yield Tile(read=(rows[0], cols[0]), own=(rows[1], cols[1]))


def _spans(length: int, tile: int, halo: int) -> Iterator[tuple[slice, slice]]:
    for start in range(0, length, tile):
        stop = min(start + tile, length)
        yield slice(max(start - halo, 0), min(stop + halo, length)), slice(start, stop)


def grown(part: Tile, read: tuple[int, int], sides: tuple[int, int]) -> Tile:
    """Return ``part`` reading ``read`` (rows, columns) where the slice has as many: an engine of one shape wants that.

    It grows into the slice, never beyond: zeros around an image are not what the network sees outside it, since every
    convolution pads anew. At an end that is no multiple of 4 up to 3 px less are read, so that tiles stay aligned.

    Args:
        read: multiples of 4, at least what ``part`` reads.
        sides: (height, width) of the slice.
    """
    rows, cols = (
        _grown(span, most, length) if length > most else slice(0, length)
        for span, most, length in zip(part.read, read, sides, strict=True)
    )
    return Tile(read=(rows, cols), own=part.own)


def _grown(span: slice, most: int, length: int) -> slice:
    last = -(-(length - most) // ALIGNMENT) * ALIGNMENT
    start = min(span.start, last)
    return slice(start, min(start + most, length))


def grown_sides(length: int, tile: int, halo: int) -> tuple[int, int]:
    """Return the least and most pixels along an axis of ``length`` that ``grown`` tiles of (tile + 2 * halo) read."""
    most = min(tile + 2 * halo, length)
    return (most if (length - most) % ALIGNMENT == 0 else most - ALIGNMENT + 1), most

"""Padding, that is, large areas of nothing but 0: it stays 0 in the output, and costs no time.

Aligned stacks and stitched mosaics have 0 where there is no image. Tools for EM volumes take 0 for "no data": they mask
``volume == 0``, store no chunks for it, and skip it. A network makes it 0 to 5.
"""

from __future__ import annotations

import numpy as np

# pixels; a part of an image that is 0 this far around a pixel is no image. Slices no wider have no padding
REACH = 32
# any area of padding has two points of this grid along each axis
_GRID = 16

Span = tuple[slice, slice]  # rows, columns of a slice


def may_have_padding(image: np.ndarray) -> bool:
    """Return False where a look at few pixels shows that ``image`` has no area of 0 as large as padding."""
    zero = image[::_GRID, ::_GRID] == 0
    for axis in (0, 1):
        if zero.shape[axis] > 1:
            first, second = (zero.take(range(at, zero.shape[axis] - 1 + at), axis) for at in (0, 1))
            zero = first & second
    return bool(zero.any())


def context_of(own: Span, sides: tuple[int, int]) -> Span:
    """Return what ``padding_of`` must see to tell it for ``own``, part of a slice of ``sides``."""
    rows, cols = (
        slice(max(part.start - 2 * REACH, 0), min(part.stop + 2 * REACH, side))
        for part, side in zip(own, sides, strict=True)
    )
    return rows, cols


def padding_of(image: np.ndarray, seen: Span, own: Span) -> np.ndarray | None:
    """Return which pixels of ``own`` are padding, bool; None if there are none.

    A pixel is padding if one no further than ``REACH`` away, in rows and in columns, has nothing but 0 around it: all
    pixels of the slice up to ``REACH`` away. This does not depend on tiles and blocks.

    Args:
        image: grey values of ``seen``, which is ``context_of(own, ...)``.
    """
    empty = image == 0
    for axis in (0, 1):
        empty = _all_within(empty, axis)
    # at the ends of what was seen, more may lie beyond: nothing so far away is near enough
    near = [
        slice(max(part.start - REACH, outer.start) - outer.start, min(part.stop + REACH, outer.stop) - outer.start)
        for part, outer in zip(own, seen, strict=True)
    ]
    full = empty[near[0], near[1]]
    for axis in (0, 1):
        full = full | ~_all_within(~full, axis)
    rows, cols = (
        slice(part.start - outer.start - span.start, part.stop - outer.start - span.start)
        for part, outer, span in zip(own, seen, near, strict=True)
    )
    padding = full[rows, cols]
    return padding if padding.any() else None


def _all_within(mask: np.ndarray, axis: int) -> np.ndarray:
    """Return where ``mask`` is True up to ``REACH`` away along ``axis``, as far as there is any."""
    length = mask.shape[axis]
    at = np.arange(length)
    first, last = np.maximum(at - REACH, 0), np.minimum(at + REACH + 1, length)
    before = np.insert(np.cumsum(mask, axis, dtype=np.int32), 0, 0, axis)
    shape = [1, 1]
    shape[axis] = length
    found: np.ndarray = before.take(last, axis) - before.take(first, axis) == (last - first).reshape(shape)
    return found

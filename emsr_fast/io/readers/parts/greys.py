"""Grey images that are stored as colours: palettes that are ramps of grey, and equal channels."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from emsr_fast.errors import VolumeError
from emsr_fast.wording import counted

# of a palette's entries, one in so many may be the colour of a mark that was drawn over the image
_ONE_MARK_IN = 8
_LOOKED_UP = 2**18  # pixels at a time


def grey_ramp(colours: np.ndarray) -> tuple[np.ndarray, int] | None:
    """Return the grey value of each palette entry, and how many entries are no part of the ramp of grey.

    These entries, the colours of marks drawn over the image, get the grey between their neighbours. Returns None if
    the palette is one of colours: greys that rise or fall must be seven in eight of the entries.

    Args:
        colours: (3, entries) uint8, or uint16 as TIFF has them.

    Returns:
        The greys, (entries,), uint8 if 8 bits hold them, else uint16.
    """
    if colours.ndim != 2 or colours.shape[0] != 3 or colours.shape[1] < 2:
        return None
    red, count = colours[0].astype(np.int64), colours.shape[1]
    grey = np.flatnonzero((colours == colours[:1]).all(axis=0))
    rising, falling = _longest_rise(red[grey]), _longest_rise(-red[grey])
    ramp = grey[rising if len(rising) >= len(falling) else falling]
    strays = count - len(ramp)
    if strays * _ONE_MARK_IN > count or red[ramp[0]] == red[ramp[-1]]:
        return None
    values, dtype = _in_bits(red[ramp], colours.dtype)
    every = np.arange(count)
    # of the usual palette, whose greys are their own numbers, the last entries may be marks, too
    greys = every if np.array_equal(values, ramp) else np.rint(np.interp(every, ramp, values))
    return greys.astype(dtype), strays


def _longest_rise(values: np.ndarray) -> np.ndarray:
    """Return the places of the longest part of ``values``, not always side by side, that never falls."""
    ends: list[int] = []  # the smallest last value of a rise of each length
    places: list[int] = []
    before = [-1] * len(values)
    for place, value in enumerate(values.tolist()):
        length = bisect_right(ends, value)
        before[place] = places[length - 1] if length else -1
        if length == len(ends):
            ends.append(value)
            places.append(place)
        else:
            ends[length], places[length] = value, place
    found = []
    place = places[-1] if places else -1
    while place >= 0:
        found.append(place)
        place = before[place]
    return np.array(found[::-1], dtype=np.int64)


def _in_bits(values: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, type]:
    """Return ``values`` in 8 bits where these hold them: TIFF palettes have 16, as multiples of 256 or of 257."""
    if dtype == np.uint8 or values.max() < 256:
        return values, np.uint8
    high, low = values >> 8, values & 255
    if not low.any() or np.array_equal(low, high):
        return high, np.uint8
    return values, np.uint16


def looked_up(greys: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Return ``greys[block]``, some rows at a time: numpy makes each number one of 8 bytes."""
    found = np.empty(block.shape, greys.dtype)
    rows = max(1, _LOOKED_UP // max(1, block.shape[-1]))
    for first in range(0, len(block), rows):
        found[first : first + rows] = greys[block[first : first + rows].astype(np.intp)]
    return found


def ramp_note(strays: int) -> str:
    """Return what to say of a palette that ``grey_ramp`` accepted."""
    if not strays:
        return "its palette is a ramp of grey: read as these greys"
    entries = counted(strays, "entry", "entries")
    return f"its palette is a ramp of grey, except {entries}, such as marks have: read as the greys between"


def one_channel(block: np.ndarray, where: str, alpha: int | float | None = None) -> np.ndarray:
    """Return the grey of pixels of 2 (grey, alpha), 3 (RGB) or 4 (RGBA) samples, (rows, cols, samples).

    Args:
        where: "slice 3 of a.tif", for messages.
        alpha: what the alpha of all pixels must be; any one value, if None.

    Raises:
        VolumeError: the colours of a pixel differ, or its alpha does from the others'.
    """
    samples = block.shape[-1]
    grey: np.ndarray = block[..., 0]
    differ = [block[..., number] != grey for number in range(1, 3 if samples > 2 else 1)]
    if any(channel.any() for channel in differ):
        pixels = int(np.logical_or(*differ).sum())
        raise VolumeError(
            f"{where} is a colour image: red, green and blue differ in {counted(pixels, 'pixel')}; convert it to grey "
            "first; if they are slices of a stack, save it with photometric='minisblack'"
        )
    if samples in (2, 4) and block.size:
        opacity = block[..., -1]
        least, most = opacity.min(), opacity.max()
        if least != most or alpha not in (None, most):
            raise VolumeError(
                f"{where} has an alpha channel that is not the same everywhere; save it as grey without alpha"
            )
    return grey

"""Seams: whether the borders between tiles are visible in an image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

# what does not belong together differs over some length; noise averages out
_SEGMENT_PX = 16


@dataclass(frozen=True)
class Seams:
    """Jumps across tile borders, and across lines that are no border."""

    borders: int  # borders inside the region, rows and columns together
    ratio: float  # mean jump at a border, divided by that elsewhere: 1 without seams
    z: float  # their difference in units of its standard error: up to about 3 is chance


def seams(image: np.ndarray, tile: int, scale: int, origin: tuple[int, int] = (0, 0)) -> Seams | None:
    """Return how much ``image`` jumps where tiles meet; None if no border lies inside it.

    The jump across a line is the step between its two sides minus the mean of the steps before and after it, averaged
    along 16 px; its root mean square over the line is used. Borders are compared with other lines that start an LR
    pixel, because the upsampler treats these alike.

    Args:
        image: (H, W), part of a super-resolved slice.
        tile: side of what a tile owns, in LR pixels.
        scale: HR pixels per LR pixel.
        origin: row and column of ``image`` in its slice, multiples of ``scale``.
    """
    at_borders: list[np.ndarray] = []
    elsewhere: list[np.ndarray] = []
    for lines, start in ((image, origin[0]), (image.T, origin[1])):
        jump = _jumps(lines.astype(np.float64))
        place = np.arange(start, start + len(lines))
        usable = (place % scale == 0) & np.isfinite(jump)
        border = usable & (place % (tile * scale) == 0)
        at_borders.append(jump[border])
        elsewhere.append(jump[usable & ~border])
    seen, others = np.concatenate(at_borders), np.concatenate(elsewhere)
    if seen.size == 0 or others.size < 2 or others.mean() == 0:
        return None
    error = others.std(ddof=1) * math.sqrt(1 / seen.size + 1 / others.size)
    difference = seen.mean() - others.mean()
    z = difference / error if error > 0 else math.copysign(math.inf, difference) if difference else 0.0
    return Seams(int(seen.size), float(seen.mean() / others.mean()), float(z))


def _jumps(image: np.ndarray) -> np.ndarray:
    """Return the jump between each row and the one before it, (H,); NaN where the neighbours it needs are missing."""
    step = np.diff(image, axis=0)  # row i + 1 less row i
    jump = np.full(len(image), np.nan)
    width = image.shape[1] // _SEGMENT_PX * _SEGMENT_PX
    if len(step) >= 3 and width:
        bend = (step[1:-1] - (step[:-2] + step[2:]) / 2)[:, :width]
        segments = bend.reshape(len(bend), -1, _SEGMENT_PX).mean(axis=2)
        jump[2:-1] = np.sqrt((segments**2).mean(axis=1))
    return jump

"""The slices that an evaluation measures, and the region of each; their number and size are limited."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from emsr_fast.errors import UsageError

# steps of the plastic sequence (Roberts 2018): any number of places covers a square evenly
_STEP_Y, _STEP_X = 0.7548776662466927, 0.5698402909980532


@dataclass(frozen=True)
class Sample:
    """One region of one slice, in HR pixels."""

    z: int
    rows: slice
    cols: slice

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.rows.stop - self.rows.start, self.cols.stop - self.cols.start

    def describe(self) -> str:
        """Return slice, rows and columns in words."""
        return f"slice {self.z}, rows {self.rows.start}:{self.rows.stop}, columns {self.cols.start}:{self.cols.stop}"


def choose_samples(
    shape: tuple[int, int, int], slices: range, most: int, region: int, step: int = 1
) -> tuple[Sample, ...]:
    """Return up to ``most`` slices, evenly spread, with a region of up to ``region`` px a side in each.

    The first region is the middle of its slice; the next ones are spread over the field. Every run chooses the same.

    Args:
        shape: (Z, Y, X) of the volume.
        slices: the slices to choose from.
        most: 0 for all.
        region: HR pixels; slices that are not larger are taken whole.
        step: regions start and end on its multiples: HR pixels per LR pixel.

    Raises:
        UsageError: ``most`` is negative, or ``region`` below 64.
    """
    if most < 0:
        raise UsageError(f"`samples` is {most}; give the number of slices to measure, or 0 for all")
    if region < 64:
        raise UsageError(f"`region` is {region} px; give at least 64, which the measures of detail need")
    number = min(most or len(slices), len(slices))
    ends = (slices.start, slices.stop - 1) if number > 1 else ((slices.start + slices.stop - 1) // 2,) * 2
    chosen = np.linspace(*ends, number).round().astype(int)
    return tuple(
        Sample(
            int(z),
            _span(shape[1], region, step, (0.5 + order * _STEP_Y) % 1),
            _span(shape[2], region, step, (0.5 + order * _STEP_X) % 1),
        )
        for order, z in enumerate(chosen)
    )


def _span(length: int, region: int, step: int, place: float) -> slice:
    if length <= region:
        return slice(0, length)
    side = region // step * step
    start = math.floor((length - side) * place / step) * step
    return slice(start, start + side)

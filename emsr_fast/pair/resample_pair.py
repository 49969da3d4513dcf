"""One pair: LR resampled to an exact multiple of the HR pixel, HR in the grey values of LR; nothing is clipped."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from emsr_fast.io.volume import SourceVolume
from emsr_fast.pair.deform import MARGIN_PX, Deformation
from emsr_fast.pair.fit_quality import FitQuality, grey_line
from emsr_fast.pair.geometry import Geometry
from emsr_fast.pair.pose import Pose
from emsr_fast.pair.read_slices import read_reduced, read_window
from emsr_fast.pair.refine import sample

_REACH_PX = 24  # what a cubic spline's coefficients depend on, and more


@dataclass(frozen=True)
class PairedPart:
    """The part of a slice that is kept."""

    z: int  # HR slice
    lr_z: int
    pose: Pose
    judged: FitQuality
    rows: slice  # of the LR grid of the pair, px
    cols: slice
    deformation: Deformation | None = None  # None: not asked for


@dataclass(frozen=True)
class PairImages:
    """The images of one pair, float32 in the grey values of LR."""

    lr: np.ndarray  # (h, w)
    hr: np.ndarray  # (scale * h, scale * w)
    gain: float  # hr = gain * acquired + offset
    offset: float

    def columns(self, kept: PairedPart, scale: int) -> dict[str, Any]:
        """Return its columns of the table: gain, offset, and the HR px that it shows."""
        return {
            "gain": self.gain,
            "offset": self.offset,
            "hr_row": kept.rows.start * scale,
            "hr_col": kept.cols.start * scale,
            "hr_rows": self.hr.shape[0],
            "hr_cols": self.hr.shape[1],
        }


def resample_pair(lr: SourceVolume, hr: SourceVolume, kept: PairedPart, shapes: Geometry) -> PairImages:
    """Return the pair of ``kept``.

    HR keeps its pixels. Gain and offset bring them to the grey values of LR, which a network gets later. LR is sampled
    by cubic splines at the centres of squares of ``scale`` HR px. Where these squares are larger than LR's own pixels,
    LR is blurred first, by the difference of the two.
    """
    scale = shapes.scale
    high = read_reduced(
        hr,
        kept.z,
        range(kept.rows.start * scale, kept.rows.stop * scale),
        range(kept.cols.start * scale, kept.cols.stop * scale),
    )
    low, top = kept.pose.reach(hr.shape[1:])
    displacement = kept.deformation.field(kept.rows, kept.cols) if kept.deformation else None
    margin = _REACH_PX if displacement is None else _REACH_PX + 2 * MARGIN_PX
    window, first = read_window(lr, kept.lr_z, low, top, margin, 1)
    coarser = scale / kept.pose.ratio
    if coarser > 1:
        # variances of a square's pixels: side^2 / 12
        window = ndimage.gaussian_filter(window, math.sqrt((coarser**2 - 1) / 12))
    spline = ndimage.spline_filter(window, order=3, output=np.float32, mode="mirror")
    matrix, offset = kept.pose.sampling(hr.shape[1:], scale, first, 1)
    shape = (kept.rows.stop - kept.rows.start, kept.cols.stop - kept.cols.start)
    offset = offset + matrix @ np.array([kept.rows.start, kept.cols.start], dtype=np.float64)
    sampled, _ = sample(spline, matrix, offset, shape, displacement)
    reduced = high.reshape(shape[0], scale, shape[1], scale).mean(axis=(1, 3))
    gain, shift = grey_line(reduced, sampled)
    return PairImages(sampled, np.float32(gain) * high + np.float32(shift), gain, shift)

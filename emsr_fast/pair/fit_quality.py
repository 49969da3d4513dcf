"""How well a registered slice fits, cell by cell, in px and in grey values; and which part of it to keep."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emsr_fast.metrics.correlation import ncc, smooth
from emsr_fast.pair.refine import Aligned

_CELL_PX = 16  # at most, unless there were more than
_MOST_CELLS = 32  # of them each way
_COVERED = 0.9  # share of a cell that LR must have
_MISFIT = 2.0  # times the misfit of the better cells, from which on a cell disagrees
_BETTER = 25  # percentile of the cells' misfits that is taken for noise
_ROUNDS = 5  # of fitting a line and leaving out what is far from it
_FAR = 3.0  # standard deviations


@dataclass(frozen=True)
class FitQuality:
    """The fit of a slice in each cell."""

    ncc: float
    residual_px: float  # median of the distances by which cells are still shifted; NaN if no cell fits
    rows: np.ndarray  # where cells begin and the last one ends, px of the reduced HR image
    cols: np.ndarray
    good: np.ndarray  # (cells down, cells across) bool


def measure_fit(aligned: Aligned, min_ncc: float) -> FitQuality:
    """Return how well the two images of ``aligned`` fit.

    A cell is bad if LR does not cover it. It is bad, too, if its NCC is below ``min_ncc`` and its images differ twice
    as much as in the better cells. So a cell of noise alone, such as empty resin, is not bad.
    """
    height, width = aligned.hr.shape
    rows, cols = (
        np.linspace(0, side, min(_MOST_CELLS, -(-side // _CELL_PX)) + 1).round().astype(int) for side in (height, width)
    )
    fits, misfits, covered = (np.zeros((len(rows) - 1, len(cols) - 1)) for _ in range(3))
    spread = float(aligned.hr[aligned.inside].std()) if aligned.inside.any() else 0.0
    gain = float(aligned.lr[aligned.inside].std()) / spread if spread > 0 else 0.0
    shifts = []
    for i, j in np.ndindex(*fits.shape):
        cell = (slice(rows[i], rows[i + 1]), slice(cols[j], cols[j + 1]))
        covered[i, j] = _trimmed(aligned.inside, cell).mean()
        if covered[i, j] < _COVERED:
            continue
        hr, lr = aligned.hr[cell], aligned.lr[cell]
        inside = aligned.inside[cell]
        fits[i, j] = ncc(hr[inside], lr[inside])
        misfits[i, j] = (lr - gain * hr)[inside].std()
        if fits[i, j] >= min_ncc:
            shifts.append(_shift(hr, lr))
    whole = covered >= _COVERED
    usual = np.percentile(misfits[whole], _BETTER) if whole.any() else 0.0
    good = whole & ((fits >= min_ncc) | (misfits <= _MISFIT * usual))
    residual = float(np.median(np.linalg.norm(shifts, axis=1))) if shifts else float("nan")
    return FitQuality(aligned.ncc, residual, rows, cols, good)


def _trimmed(inside: np.ndarray, cell: tuple[slice, slice]) -> np.ndarray:
    # the outermost pixels are never compared: they must not make a border cell look uncovered
    height, width = inside.shape
    trimmed: np.ndarray = inside[2 : height - 2, 2 : width - 2][
        max(0, cell[0].start - 2) : cell[0].stop - 2, max(0, cell[1].start - 2) : cell[1].stop - 2
    ]
    return trimmed


def _shift(hr: np.ndarray, lr: np.ndarray) -> np.ndarray:
    from skimage.registration import phase_cross_correlation

    taper = np.hanning(hr.shape[0])[:, None] * np.hanning(hr.shape[1])
    shift = phase_cross_correlation(hr * taper, lr * taper, upsample_factor=50, normalization=None)[0]
    return np.asarray(shift)


def best_rectangle(good: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> tuple[slice, slice, np.ndarray]:
    """Return rows and columns, px, of the rectangle of cells that keeps most pixels, and which slices have all of it.

    Args:
        good: (slices, cells down, cells across) bool; a slice counts if all its cells in the rectangle are good.
        rows: where cells begin and the last one ends; cols likewise.
    """
    total = np.zeros((good.shape[0], len(rows), len(cols)), dtype=np.int64)
    total[:, 1:, 1:] = (~good).cumsum(axis=1).cumsum(axis=2)
    most, best = -1, (0, 1, 0, 1)
    for top in range(len(rows) - 1):
        for bottom in range(top + 1, len(rows)):
            bands = total[:, bottom] - total[:, top]
            # (slices, left, right): bad cells between
            whole = (bands[:, None, :] - bands[:, :, None] == 0).sum(axis=0)
            area = (rows[bottom] - rows[top]) * np.maximum(cols[None, :] - cols[:, None], 0)
            left, right = (int(i) for i in np.unravel_index(int((area * whole).argmax()), area.shape))
            if (kept := int(area[left, right] * whole[left, right])) > most:
                most, best = kept, (top, bottom, left, right)
    top, bottom, left, right = best
    members = np.asarray(good[:, top:bottom, left:right].all(axis=(1, 2)))
    return slice(int(rows[top]), int(rows[bottom])), slice(int(cols[left]), int(cols[right])), members


def grey_line(hr: np.ndarray, lr: np.ndarray) -> tuple[float, float]:
    """Return gain and offset that bring the grey values of ``hr`` to those of ``lr``; outliers do not count.

    The line through the mean with the ratio of standard deviations as its slope, of smoothed images: a least-squares
    slope would be too flat, since both images are noisy. Pixels beyond 3 standard deviations (from the median absolute
    residual) are left out, five times over.

    Args:
        hr: (h, w), reduced to the grid of ``lr``.
        lr: (h, w), of the same place.
    """
    x, y = (smooth(image, 2.0).astype(np.float64).ravel() for image in (hr, lr))
    used = np.ones(x.shape, dtype=bool)
    gain, offset = 1.0, 0.0
    for _ in range(_ROUNDS):
        spread = x[used].std()
        gain = float(y[used].std() / spread) if spread > 0 else 1.0
        offset = float(y[used].mean() - gain * x[used].mean())
        distance = np.abs(y - gain * x - offset)
        used = distance <= _FAR * 1.4826 * np.median(distance)
    return gain, offset

"""Two scans of one field drift against each other: the first is bent onto the second by a smooth field."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from emsr_fast.errors import VolumeError
from emsr_fast.metrics.correlation import band, ncc
from emsr_fast.train.volumes import TrainingVolume

MOST_RESIDUAL_PX = 0.5  # left after registration, median over the cells of a slice
_RADIUS_PX, _SMOOTH_PX = 12, 8  # of the window in which drift is one shift; of the Gaussian that keeps the field smooth
_ROUNDS, _WARPS = 2, 4
_EVERY_PX = 4  # the field is smooth: so many pixels share a value that is kept
_CELL_PX, _LEAST_NCC = 36, 0.5  # of cells in which the residual is measured, and what they must have in common
_SPLINE_PX = 12  # beyond a crop, what a cubic spline depends on


def drift_between(reference: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """Return the drift, (2, H, W) float32 px in (y, x): ``moving`` at x + drift shows what ``reference`` shows at x.

    Args:
        reference: (H, W), noisy; moving: as large, shifted by a few pixels at most, its noise independent.
    """
    from skimage.registration import optical_flow_ilk

    still = _band(reference)
    drift = np.zeros((2, *reference.shape), np.float32)
    for _ in range(_ROUNDS):
        found = optical_flow_ilk(
            still, _band(bent(moving, drift)), radius=_RADIUS_PX, num_warp=_WARPS, gaussian=True, dtype=np.float32
        )
        drift += np.stack([ndimage.gaussian_filter(part, _SMOOTH_PX, mode="nearest") for part in found])
    return drift


def bent(moving: np.ndarray, drift: np.ndarray) -> np.ndarray:
    """Return ``moving``, (H, W), at x + ``drift`` for each pixel x: cubic spline, edge pixels repeated."""
    places = np.indices(drift.shape[1:], dtype=np.float32) + drift
    result: np.ndarray = ndimage.map_coordinates(moving.astype(np.float32), places, order=3, mode="nearest")
    return result


def residual_px(reference: np.ndarray, moving: np.ndarray) -> float:
    """Return by how many px two images, (H, W), are still shifted: the median over cells that show the same.

    It is infinite if no cell does. The taper of the cells makes a shift look up to a fifth smaller.
    """
    from skimage.registration import phase_cross_correlation

    first, second = _band(reference), _band(moving)
    rows, cols = (np.arange(0, side - min(side, _CELL_PX) + 1, min(side, _CELL_PX)) for side in reference.shape)
    shifts = []
    for top in rows:
        for left in cols:
            cell = np.s_[top : top + _CELL_PX, left : left + _CELL_PX]
            if ncc(first[cell], second[cell]) >= _LEAST_NCC:
                taper = np.hanning(first[cell].shape[0])[:, None] * np.hanning(first[cell].shape[1])
                shift = phase_cross_correlation(
                    first[cell] * taper, second[cell] * taper, upsample_factor=20, normalization=None
                )[0]
                shifts.append(float(np.linalg.norm(shift)))
    return float(np.median(shifts)) if shifts else float("inf")


class UndriftedVolume(TrainingVolume):
    """A scan, its crops bent onto those of another scan of the same field."""

    def __init__(self, origin: TrainingVolume, reference: TrainingVolume) -> None:
        """Register every slice of ``origin`` with the slice of ``reference`` of the same number.

        Raises:
            VolumeError: a slice cannot be read, or is shifted by more than ``MOST_RESIDUAL_PX`` after registration.
        """
        self.__dict__.update(vars(origin))  # the same volume but for its crops
        self._drifts = [_drift(origin, reference, z) for z in range(origin.shape[0])]

    def crop(self, z: int, rows: slice, cols: slice) -> np.ndarray:
        """Return part of slice ``z``, normalised, bent."""
        _, height, width = self.shape
        coarse = self._drifts[z]
        y, x = np.mgrid[rows, cols].astype(np.float32)
        drift = np.stack(
            [ndimage.map_coordinates(p, (y / _EVERY_PX, x / _EVERY_PX), order=1, mode="nearest") for p in coarse]
        )
        reach = int(np.ceil(np.abs(drift).max())) + _SPLINE_PX
        top, left = max(rows.start - reach, 0), max(cols.start - reach, 0)
        part = super().crop(z, slice(top, min(rows.stop + reach, height)), slice(left, min(cols.stop + reach, width)))
        result: np.ndarray = ndimage.map_coordinates(
            part.astype(np.float32), (y + drift[0] - top, x + drift[1] - left), order=3, mode="nearest"
        )
        return result


def _drift(origin: TrainingVolume, reference: TrainingVolume, z: int) -> np.ndarray:
    moving, still = (v.normalisation.to_model(v.whole(z)).astype(np.float32) for v in (origin, reference))
    drift = drift_between(still, moving)
    left = residual_px(still, bent(moving, drift))
    if left > MOST_RESIDUAL_PX:
        shown = "show nothing in common" if left == float("inf") else f"are still {left:.1f} px apart"
        raise VolumeError(
            f"slice {z} of {origin.path} and {reference.path} {shown} after registration, at most "
            f"{MOST_RESIDUAL_PX} px are allowed; leave the pair out, or set drift to false"
        )
    return drift[:, ::_EVERY_PX, ::_EVERY_PX]


def _band(image: np.ndarray) -> np.ndarray:
    """Return ``image`` without single-pixel noise and slow changes of brightness, standard deviation 1."""
    passed = band(image)
    return passed / max(float(passed.std()), 1e-12)

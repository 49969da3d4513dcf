"""What noise an image has: variance = gain * intensity + offset, measured, for the degradation of HR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from emsr_fast.errors import VolumeError
from emsr_fast.train.pairs import files_of
from emsr_fast.train.volumes import TrainingVolume

_BLOCK = 8  # px: side of the blocks whose mean and noise make one point
_BINS = 24
_LEAST_BLOCKS = 40  # per bin
_FLATTEST = 0.2  # share of the blocks of a bin, those with the least structure, that count as noise only
_CLIPPED = 0.02  # distance from 0 and 1, where clipping hides noise
_SLICES = 8  # of a volume
# Immerkaer's mask takes away planes and answers white noise of variance 1 with variance 36
_MASK = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float64)


@dataclass(frozen=True)
class NoiseModel:
    """variance = gain * intensity + offset, in grey levels of 255 and their squares."""

    gain: float
    offset: float
    sigma: float  # standard deviation at the images' mean intensity, grey levels of 255
    points: int  # blocks the line was fitted to


def measure_noise(paths: Sequence[Path]) -> NoiseModel:
    """Return the noise of images, from their flattest blocks; correlated noise is underestimated.

    A line is fitted through (mean, variance) of blocks of 8 x 8 px in bins of equal intensity. The variance comes from
    a 3x3 mask blind to planes (Immerkaer 1996); of each bin the fifth with the least response is taken, scaled by what
    that selection takes away from pure noise.

    Raises:
        VolumeError: an image cannot be read, or too few blocks are neither clipped nor structured.
    """
    means, variances = [], []
    for path in (file for given in paths for file in files_of(given)):
        volume = TrainingVolume(path)
        for z in np.unique(np.linspace(0, volume.shape[0] - 1, _SLICES).round().astype(int)):
            mean, variance = _blocks(volume.normalisation.to_model(volume.whole(int(z))))
            means.append(mean)
            variances.append(variance)
    mean, variance = np.concatenate(means), np.concatenate(variances)
    inside = (mean > _CLIPPED) & (mean < 1 - _CLIPPED)
    mean, variance = mean[inside], variance[inside]
    if mean.size < 4 * _LEAST_BLOCKS:
        raise VolumeError(f"{paths[0]} has {mean.size} blocks of {_BLOCK} px that are not clipped; give larger images")
    centres, levels, weights = _line_points(mean, variance)
    gain, offset = _fit(centres, levels, weights)
    return NoiseModel(
        gain=gain * 255,
        offset=offset * 255**2,
        sigma=255 * float(np.sqrt(max(gain * mean.mean() + offset, 0))),
        points=int(mean.size),
    )


def _blocks(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and noise variance of each block of ``image``."""
    response = ndimage.convolve(image.astype(np.float64), _MASK)[1:-1, 1:-1] ** 2 / 36
    image = image[1:-1, 1:-1]
    rows, cols = image.shape[0] // _BLOCK, image.shape[1] // _BLOCK

    def averaged(values: np.ndarray) -> np.ndarray:
        cut = values[: rows * _BLOCK, : cols * _BLOCK].reshape(rows, _BLOCK, cols, _BLOCK)
        return np.asarray(cut.mean(axis=(1, 3)), dtype=np.float64).ravel()

    return averaged(image), averaged(response)


def _line_points(mean: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return intensity, variance and weight of each bin."""
    centres, levels, weights = [], [], []
    order = np.argsort(mean)
    bins = min(_BINS, mean.size // _LEAST_BLOCKS)
    for members in np.array_split(order, bins):
        flattest = np.sort(variance[members])[: max(1, int(_FLATTEST * members.size))]
        centres.append(mean[members].mean())
        levels.append(flattest.mean() / _selection_bias())
        weights.append(members.size)
    return np.array(centres), np.array(levels), np.array(weights, dtype=np.float64)


def _selection_bias() -> float:
    """Return the mean of the flattest fifth of blocks of pure white noise, relative to the mean of all."""
    rng = np.random.default_rng(0)
    _, variance = _blocks(rng.standard_normal((402, 402)))
    flattest = np.sort(variance)[: int(_FLATTEST * variance.size)]
    return float(flattest.mean() / variance.mean())


def _fit(centres: np.ndarray, levels: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Return gain and offset, not negative, of the weighted least-squares line."""
    from scipy.optimize import nnls

    root = np.sqrt(weights)
    (gain, offset), _ = nnls(np.stack([centres, np.ones_like(centres)], axis=1) * root[:, None], levels * root)
    return float(gain), float(offset)

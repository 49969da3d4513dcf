"""The noise of images: variance = gain * intensity + offset, measured on their flattest parts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np

from emsr_fast.errors import VolumeError

_BLOCK = 8  # px: side of the blocks whose mean and noise make one point
_BINS = 24
_LEAST_BLOCKS = 40  # per bin
_FLATTEST = 0.2  # share of the blocks of a bin, those with the least structure, that count as noise only
# shares of all blocks, and the least number of them: what the flattest have is noise if the very flattest have as much
_FEW, _LEAST_FEW = 0.02, 60
_VERY_FEW, _LEAST_VERY_FEW = 0.002, 20
_MOST_LACKING = 0.2  # of the variance; 20 blocks of white noise lack nothing, give or take 6 %
_CLIPPED = 0.02  # distance from 0 and 1, where clipping hides noise


@dataclass(frozen=True)
class NoiseModel:
    """variance = gain * intensity + offset, in grey levels of 255 and their squares."""

    gain: float
    offset: float
    sigma: float  # standard deviation at the images' mean intensity, grey levels of 255
    points: int  # blocks the line was fitted to
    few: float  # sigma of the flattest 2 % of all blocks, at least 60, grey levels of 255
    very_few: float  # of the flattest 0.2 %, at least 20

    @property
    def is_known(self) -> bool:
        """Whether the flattest blocks have as much noise as the very flattest, as they do without structure."""
        return self.very_few**2 >= (1 - _MOST_LACKING) * self.few**2


def noise_of(images: Iterable[np.ndarray], name: str) -> NoiseModel:
    """Return the noise of ``images``, (H, W) in [0, 1], from their flattest blocks; correlated noise is underestimated.

    A line is fitted through (mean, variance) of blocks of 8 x 8 px in bins of equal intensity. The variance comes from
    a 3x3 mask that gives 0 on planes (Immerkaer 1996). In each bin the fifth with the least response is used, scaled by
    the bias of this selection on pure noise.

    Limits: if less than a fifth of the image is flat, structure as small as a pixel counts as noise. ``few`` comes from
    the flattest 2 %, and is a fifth too high if a tenth is flat. If structure is everywhere and its strength varies,
    the flattest 0.2 % have less of it than the flattest 2 %: then ``is_known`` is False, and the noise is below
    ``very_few``. Structure that is equally strong everywhere cannot be told from noise in one image: FIB-SEM of 10 nm,
    binned by 3, has noise of 1.2, and 4 is measured.

    Args:
        name: a name for the images, for messages.

    Raises:
        VolumeError: too few blocks are not clipped.
    """
    points = [_blocks(image) for image in images] or [(np.empty(0), np.empty(0))]
    mean, variance = (np.concatenate(parts) for parts in zip(*points, strict=True))
    inside = (mean > _CLIPPED) & (mean < 1 - _CLIPPED)
    mean, variance = mean[inside], variance[inside]
    if mean.size < 4 * _LEAST_BLOCKS:
        raise VolumeError(f"{name} has {mean.size} blocks of {_BLOCK} px that are not clipped; give larger images")
    gain, offset = _fit(*_line_points(mean, variance))
    sigma = 255 * float(np.sqrt(max(gain * mean.mean() + offset, 0)))
    return NoiseModel(
        gain=gain * 255,
        offset=offset * 255**2,
        sigma=sigma,
        points=int(mean.size),
        few=sigma * _of_flattest(max(_FEW, _LEAST_FEW / mean.size), variance, gain * mean + offset),
        very_few=sigma * _of_flattest(max(_VERY_FEW, _LEAST_VERY_FEW / mean.size), variance, gain * mean + offset),
    )


def _of_flattest(share: float, variance: np.ndarray, expected: np.ndarray) -> float:
    """Return the sigma of the flattest ``share`` of all blocks, relative to what the fitted line expects."""
    if not (expected > 0).all():
        return 1.0
    relative = np.sort(variance / expected)[: round(share * variance.size)]
    return float(np.sqrt(relative.mean() / _selection_bias(share)))


def _blocks(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and noise variance of each block of ``image``."""
    image = image.astype(np.float64)
    # the mask (1, -2, 1) both ways answers white noise of variance 1 with variance 36
    across = image[:, :-2] - 2 * image[:, 1:-1] + image[:, 2:]
    response = (across[:-2] - 2 * across[1:-1] + across[2:]) ** 2 / 36
    image = image[1:-1, 1:-1]
    rows, cols = (max(side // _BLOCK, 0) for side in response.shape)

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
        levels.append(flattest.mean() / _selection_bias(_FLATTEST))
        weights.append(members.size)
    return np.array(centres), np.array(levels), np.array(weights, dtype=np.float64)


@cache
def _selection_bias(share: float) -> float:
    """Return the mean of the flattest ``share`` of blocks of pure white noise, relative to the mean of all."""
    # of the smallest shares still 80 blocks
    side = 402 if share >= _FLATTEST else 1602
    rng = np.random.default_rng(0)
    _, variance = _blocks(rng.standard_normal((side, side)))
    flattest = np.sort(variance)[: round(share * variance.size)]
    return float(flattest.mean() / variance.mean())


def _fit(centres: np.ndarray, levels: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Return gain and offset, not negative, of the weighted least-squares line."""
    gain, offset = np.polynomial.polynomial.polyfit(centres, levels, 1, w=np.sqrt(weights))[::-1]
    if gain >= 0 and offset >= 0:
        return float(gain), float(offset)
    # at the bound: the better of a constant and a line through the origin
    choices = [
        (0.0, max(0.0, float(np.average(levels, weights=weights)))),
        (max(0.0, float((weights * centres * levels).sum() / (weights * centres**2).sum())), 0.0),
    ]
    return min(choices, key=lambda line: float((weights * (line[0] * centres + line[1] - levels) ** 2).sum()))

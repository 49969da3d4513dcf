"""Fourier ring correlation: the finest detail down to which two images of one specimen agree.

Sources: Saxton and Baumeister, J. Microsc. 127 (1982) 127; the 1/7 criterion: Nieuwenhuizen et al., Nat. Methods 10
(2013) 557; one image split into two: Koho et al., Nat. Commun. 10 (2019) 3103.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emsr_fast.metrics.rings import Rings, check_image, hann

THRESHOLD = 1 / 7
# a fall below the threshold counts when the mean of this ring and the next ones has fallen too
_CONFIRMING_RINGS = 5
# what lies before the cut-off must stand out of chance by so many standard errors
_SIGNIFICANT = 3.0
# neighbouring frequencies are not independent behind a Hann window: (mean of its 4th power / squared mean of its 2nd)
_HANN_OVERLAP = ((35 / 128) / (3 / 8) ** 2) ** 2


@dataclass(frozen=True)
class RingCorrelation:
    """A Fourier ring correlation, kept as its sums so that curves of several slices can be added."""

    frequency: np.ndarray  # (R,), cycles per pixel of the image, ring 0 being the mean
    cross: np.ndarray  # (R,), real part of the cross spectrum, summed over each ring
    power: np.ndarray  # (R,), of the first image
    other_power: np.ndarray  # (R,), of the second

    @property
    def value(self) -> np.ndarray:
        """(R,), from -1 to 1: 1 where the images agree, about 0 where they share nothing; 0 for empty rings."""
        scale = np.sqrt(self.power * self.other_power)
        return np.divide(self.cross, scale, out=np.zeros_like(scale), where=scale > 0)


@dataclass(frozen=True)
class CutOff:
    """Where a curve falls below its threshold."""

    frequency: float | None  # cycles per pixel; None unless ``limit`` is "crossing"
    limit: str  # "crossing"; "sampling": it never falls; "nothing shared": not more than by chance

    @property
    def resolution_px(self) -> float | None:
        """The period of the cut-off in pixels, the finest detail shared; None without a crossing."""
        return None if self.frequency is None else 1 / self.frequency


def ring_correlation(image: np.ndarray, other: np.ndarray) -> RingCorrelation:
    """Return the Fourier ring correlation of two images, in rings of one period per shorter side.

    Means are subtracted and edges faded by a Hann window, which moves a sharp cut-off up by at most two rings. The
    images must be registered: a shift of d px attenuates the frequency f by cos(2 pi f d).

    Args:
        image: (H, W), any gain and offset.
        other: (H, W), of the same specimen with noise of its own; noise that both share counts as detail.

    Raises:
        ValueError: unequal shapes, sides below 16 px, constant or non-finite images.
    """
    if image.shape != other.shape:
        raise ValueError(f"images are {image.shape} and {other.shape}; they must be equal")
    return _correlation(_spectrum(image, "the first image"), _spectrum(other, "the second image"), Rings(image.shape))


def single_image_ring_correlation(image: np.ndarray) -> RingCorrelation:
    """Return the Fourier ring correlation of the two halves of a chessboard of one image, up to 0.25 cycles per px.

    The halves are correlated along both diagonals; the shift between their pixels is corrected in phase. This is valid
    only if neighbouring pixels have independent noise: smoothed noise, such as a network's, counts as detail. It is
    valid only if there is little beyond 0.25 cycles per px, too, because that folds back into the curve.

    Args:
        image: (H, W), sides of at least 32 px; an odd last row or column is left out.

    Raises:
        ValueError: as ``ring_correlation``.
    """
    check_image(image, least_side=32)
    height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
    parts = {(y, x): image[y:height:2, x:width:2] for y in (0, 1) for x in (0, 1)}
    rings = Rings(parts[0, 0].shape)
    curves = []
    for first, second in (((0, 0), (1, 1)), ((0, 1), (1, 0))):
        down, across = ((b - a) / 2 for a, b in zip(first, second, strict=True))  # pixels of a half
        shift = np.exp(-2j * np.pi * (rings.down * down + rings.across * across))
        spectra = [_spectrum(parts[part], "a half of the image") for part in (first, second)]
        curves.append(_correlation(spectra[0], spectra[1] * shift, rings))
    both = added(curves)
    return RingCorrelation(both.frequency / 2, both.cross, both.power, both.other_power)


def added(curves: Sequence[RingCorrelation]) -> RingCorrelation:
    """Return one curve from those of several slices of one shape, ring by ring."""
    sums = (np.sum([getattr(curve, name) for curve in curves], axis=0) for name in ("cross", "power", "other_power"))
    return RingCorrelation(curves[0].frequency, *sums)


def cut_off(curve: RingCorrelation, threshold: float = THRESHOLD) -> CutOff:
    """Return where ``curve`` falls below ``threshold`` and stays there, interpolated between two rings.

    A single ring below it does not count: the mean over it and the next four must be below, too.
    """
    value = curve.value
    for ring in range(1, len(value)):
        after = value[ring : ring + _CONFIRMING_RINGS]
        if value[ring] < threshold and after.mean() < threshold:
            if not _significant(value[1:ring]):
                return CutOff(None, "nothing shared")
            above, below = value[ring - 1], value[ring]
            part = (above - threshold) / (above - below)
            place = curve.frequency[ring - 1] + part * (curve.frequency[ring] - curve.frequency[ring - 1])
            return CutOff(float(place), "crossing")
    return CutOff(None, "sampling")


def _significant(before: np.ndarray) -> bool:
    """Return, for rings 1, 2, ... of two images, whether they correlate more than by chance."""
    rings = np.arange(1, len(before) + 1)
    # a ring has about 2 pi times its number of frequencies, half of them mirror images of the others
    independent = np.pi * rings.sum() / _HANN_OVERLAP
    return bool(rings.sum() and np.average(before, weights=rings) > _SIGNIFICANT / np.sqrt(independent))


def _spectrum(image: np.ndarray, name: str) -> np.ndarray:
    exact = check_image(image, name)
    window = hann(image.shape)
    # the mean under the window, or the window itself would be correlated
    spectrum: np.ndarray = np.fft.rfft2((exact - np.average(exact, weights=window)) * window)
    return spectrum


def _correlation(first: np.ndarray, second: np.ndarray, rings: Rings) -> RingCorrelation:
    cross = (first * second.conj()).real
    return RingCorrelation(rings.frequency, *(rings.sums(part) for part in (cross, abs(first) ** 2, abs(second) ** 2)))

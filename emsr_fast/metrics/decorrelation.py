"""Decorrelation analysis: the finest detail of one image above its noise.

Source: Descloux, Grussmayer, Radenovic, Nat. Methods 16 (2019) 918.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emsr_fast.metrics.rings import Rings, check_image, faded_edges

_EDGE_PX = 20
_FILTERS = 10  # high-pass filters in each of two passes
_NARROWEST_PX = 0.15  # of their Gaussians
_LEAST_FALL = 1e-3  # behind a maximum, for it to be one
_LEAST_HEIGHT = 0.05
# so many rings for each radius: the filters vary within a radius where the frequency is low
_FINENESS = 4


@dataclass(frozen=True)
class Decorrelation:
    """The result of decorrelation analysis of an image."""

    cut_off: float | None  # cycles per pixel; None: no maximum, so noise reaches to the finest detail, or there is none
    step: float  # cycles per pixel between two radii: the cut-off cannot be known better than this
    frequency: np.ndarray  # (R,), radii in cycles per pixel
    unfiltered: np.ndarray  # (R,), the curve of the image itself
    deciding: np.ndarray  # (R,), the curve whose maximum is the cut-off; the unfiltered one if there is none

    @property
    def resolution_px(self) -> float | None:
        """The period of the cut-off in pixels, the finest detail; None without one."""
        return None if self.cut_off is None else 1 / self.cut_off


def decorrelation(image: np.ndarray) -> Decorrelation:
    """Return the decorrelation analysis of ``image``, (H, W), at every radius of one period per shorter side.

    The curve d(r) correlates the spectrum with its phases inside radius r. It has a maximum where the signal ends and
    only noise is left. The image is high-passed more and more strongly, and the maximum at the highest frequency is the
    cut-off. Noise must be white beyond the cut-off: frequencies that a network smoothed away look like the end of the
    signal. Where signal plus noise is less than twice the noise, there is no maximum, and the end is not found.

    Raises:
        ValueError: sides below 64 px, a constant or non-finite image.
    """
    exact = check_image(image, least_side=64)
    spectrum = np.abs(np.fft.rfft2((exact - exact.mean()) * faded_edges(image.shape, _EDGE_PX)))
    rings = Rings(image.shape, _FINENESS)
    curves = _Curves(rings, rings.sums(spectrum), rings.sums(spectrum**2))

    unfiltered = curves.of(None)
    found = [(_peak(unfiltered), unfiltered)]
    # from the period of the first maximum, or the whole image, down to filters that keep the finest detail only
    widest = min(1 / curves.frequency[found[0][0] or 1], min(image.shape) / 2)
    sigmas = np.geomspace(max(widest, 2 * _NARROWEST_PX), _NARROWEST_PX, _FILTERS)
    for _ in range(2):
        tried = [(_peak(curve), curve) for curve in map(curves.of, sigmas)]
        best = max(range(len(tried)), key=lambda number: tried[number][0])
        found += tried
        sigmas = np.geomspace(sigmas[max(best - 1, 0)], sigmas[min(best + 1, _FILTERS - 1)], _FILTERS)
    place, deciding = max(found, key=lambda one: one[0])
    return Decorrelation(
        cut_off=float(curves.frequency[place]) if place else None,
        step=float(curves.frequency[1]),
        frequency=curves.frequency,
        unfiltered=unfiltered,
        deciding=deciding if place else unfiltered,
    )


class _Curves:
    """d(r) for an image after any filter that depends only on frequency, from its sums over rings."""

    def __init__(self, rings: Rings, magnitude: np.ndarray, power: np.ndarray) -> None:
        self._frequency, self._magnitude, self._power = rings.frequency, magnitude, power
        self._inside = np.cumsum(rings.count)
        self._radii = slice(None, None, _FINENESS)
        self.frequency = rings.frequency[self._radii]

    def of(self, sigma_px: float | None) -> np.ndarray:
        """Return d(r) of the image minus its Gaussian blur of ``sigma_px``, or of the image itself."""
        # the blur's transfer function; R in the source is 2 f, its g is pi sigma / 2
        blur = 0.0 if sigma_px is None else np.exp(-2 * (np.pi * sigma_px * self._frequency) ** 2)
        passed = 1.0 - blur
        magnitude, power = np.cumsum(self._magnitude * passed), np.sum(self._power * passed**2)
        curve: np.ndarray = (magnitude / np.sqrt(power * self._inside))[self._radii]
        return curve


def _peak(curve: np.ndarray) -> int:
    """Return the radius of the highest maximum after which the curve falls clearly, 0 if there is none."""
    end = len(curve)
    while end > 1:
        place = int(np.argmax(curve[:end]))
        if place == 0:
            return 0
        if place < end - 1 and curve[place] - curve[place:end].min() >= _LEAST_FALL:
            return place if curve[place] >= _LEAST_HEIGHT else 0
        # still rising at its end, or flat: look before it
        end = place
    return 0

"""How alike two images are in the band of frequencies that both can show."""

from __future__ import annotations

import numpy as np
from scipy import fft, ndimage

_FINE_PX = 1.0  # standard deviation of the Gaussian that takes away what single pixels do
_COARSE_PX = 33  # side of the box that, applied three times, is nearly a Gaussian of 16.5 px


def smooth(image: np.ndarray, pixel: float = 1.0) -> np.ndarray:
    """Return ``image`` (H, W) without the noise of single pixels, float32.

    Args:
        pixel: how many of this image's pixels make one px.
    """
    smoothed: np.ndarray = ndimage.gaussian_filter(image.astype(np.float32, copy=False), _FINE_PX * pixel)
    return smoothed


def without_background(image: np.ndarray, inside: np.ndarray | None = None) -> np.ndarray:
    """Return ``image`` (H, W) minus its slow changes of brightness, float32; 0 where it is not ``inside``."""
    if inside is None or inside.all():
        return image - _blurred(image)
    weight = _blurred(inside.astype(np.float32))
    background = _blurred(np.where(inside, image, 0)) / np.maximum(weight, 1e-3)
    return np.where(inside, image - background, 0)


def band(image: np.ndarray) -> np.ndarray:
    """Return ``image`` (H, W) band-passed to about 2 to 40 px, float32: all comparisons use this band."""
    return without_background(smooth(image))


def ncc(first: np.ndarray, second: np.ndarray) -> float:
    """Return the normalised cross-correlation of two arrays of one shape, -1 to 1; 0 where one is constant."""
    a, b = (array.astype(np.float64).ravel() for array in (first, second))
    a -= a.mean()
    b -= b.mean()
    power = float(a @ a) * float(b @ b)
    return float(a @ b) / power**0.5 if power > 0 else 0.0


def independent_samples(first: np.ndarray, second: np.ndarray) -> float:
    """Return the number of independent pixels of two images (H, W) with mean 0, for the significance of their NCC.

    Neighbouring pixels are alike, so the NCC of unrelated images has a standard deviation of 1 / sqrt(this number).
    Source: P. Clifford, S. Richardson, D. Hemon, Assessing the significance of the correlation between two spatial
    processes, Biometrics 45, 1989; the sum over distances taken in the frequency domain.
    """
    powers = [np.abs(fft.fft2(image - image.mean())).astype(np.float64) ** 2 for image in (first, second)]
    together = float((powers[0] * powers[1]).sum())
    return float(powers[0].sum() * powers[1].sum()) / together if together > 0 else 0.0


def _blurred(image: np.ndarray) -> np.ndarray:
    # three boxes cost the same whatever their side
    for _ in range(3):
        image = ndimage.uniform_filter(image, _COARSE_PX)
    return image

"""Images in Fourier space, summed over rings of equal frequency."""

from __future__ import annotations

import numpy as np


def check_image(image: np.ndarray, name: str = "image", least_side: int = 16) -> np.ndarray:
    """Return ``image`` in float64.

    Raises:
        ValueError: not (H, W), a side below ``least_side``, pixels that are no number, or all of them equal.
    """
    if image.ndim != 2 or min(image.shape) < least_side:
        raise ValueError(f"{name} is {image.shape}; it must be (H, W) with sides of at least {least_side} px")
    exact = image.astype(np.float64)
    if not np.isfinite(exact).all():
        raise ValueError(f"{name} has {np.count_nonzero(~np.isfinite(exact))} NaN or infinite pixels")
    if exact.max() == exact.min():
        raise ValueError(f"{name} is constant: all its pixels are {exact.flat[0]:g}, which has no detail to measure")
    return exact


def hann(shape: tuple[int, int]) -> np.ndarray:
    """Return a Hann window, (H, W), which fades the edges of an image: they would add to every frequency."""
    rows, cols = (np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2 for side in shape)
    return np.outer(rows, cols)


def faded_edges(shape: tuple[int, int], margin: int) -> np.ndarray:
    """Return a window, (H, W), that rises from 0 to 1 over ``margin`` px at each edge, and is 1 inside."""

    def side_of(length: int) -> np.ndarray:
        distance = np.minimum(np.arange(length), np.arange(length)[::-1]) + 0.5
        return np.sin(np.pi / 2 * np.minimum(distance / min(margin, length / 2), 1)) ** 2

    return np.outer(side_of(shape[0]), side_of(shape[1]))


class Rings:
    """The rings of the half plane that ``np.fft.rfft2`` returns for images of (H, W).

    Ring i holds the frequencies nearest to i / (fineness * min(H, W)) cycles per pixel, up to 0.5, the Nyquist
    frequency. Higher frequencies, in the corners, are left out.
    """

    def __init__(self, shape: tuple[int, int], fineness: int = 1) -> None:
        height, width = shape
        rings_per_cycle = fineness * min(shape)
        self.down = np.fft.fftfreq(height)[:, None]  # cycles per pixel
        self.across = np.fft.rfftfreq(width)[None]
        self.frequency = np.arange(rings_per_cycle // 2 + 1) / rings_per_cycle  # cycles per pixel
        numbers = np.rint(np.hypot(self.down, self.across) * rings_per_cycle).astype(np.intp)
        # one more ring for the corners, thrown away by ``sums``
        self._numbers = np.minimum(numbers, len(self.frequency)).ravel()
        # the other half plane is the mirror image of this one, but for its first column and that of Nyquist
        weight = np.full(width // 2 + 1, 2.0)
        weight[0] = 1.0
        if width % 2 == 0:
            weight[-1] = 1.0
        self._weight = np.broadcast_to(weight, (height, width // 2 + 1)).ravel()
        self.count = self.sums(np.ones((height, width // 2 + 1)))

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of ``values`` over each ring of the whole plane, (R,); ``values`` as from ``rfft2``."""
        sums = np.bincount(self._numbers, self._weight * values.ravel(), minlength=len(self.frequency) + 1)
        return sums[: len(self.frequency)]

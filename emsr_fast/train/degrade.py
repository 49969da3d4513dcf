"""From HR to LR, and the noise of an electron microscope; intensities in [0, 1], never clipped."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from emsr_fast.io.resize import block_means
from emsr_fast.train.config import GREY, Degradation, Noise


def degrade(hr: np.ndarray, scale: int, settings: Degradation, rng: np.random.Generator) -> np.ndarray:
    """Return a noisy LR image, (H, W) float32, made from ``hr``, (scale * H, scale * W).

    Blur, then reduction, then new noise (local_variance: noise, then reduction, as published). The noise of ``hr`` is
    in the result, too, low-passed.
    """
    sigma = rng.uniform(*settings.blur_sigma_px)
    if sigma > 0:
        hr = ndimage.gaussian_filter(hr, sigma, mode="reflect")
    if settings.noise.kind == "local_variance":
        return reduce(add_noise(hr, settings.noise, rng), scale, settings.reduce)
    return add_noise(reduce(hr, scale, settings.reduce), settings.noise, rng)


def reduce(hr: np.ndarray, scale: int, kind: str = "area") -> np.ndarray:
    """Return ``hr`` reduced by ``scale``: the mean of each square, or linear interpolation at its centre."""
    height, width = hr.shape[0] // scale, hr.shape[1] // scale
    hr = hr[: height * scale, : width * scale]
    if kind == "area":
        return block_means(hr[None], (1, scale, scale), np.float32)[0]
    # the centre of a square is a pixel for odd scales, the middle of four for even ones
    middle = slice((scale - 1) // 2, scale // 2 + 1)
    squares = hr.reshape(height, scale, width, scale)
    return squares[:, middle, :, middle].mean(axis=(1, 3), dtype=np.float32)


def add_noise(image: np.ndarray, noise: Noise, rng: np.random.Generator) -> np.ndarray:
    """Return ``image`` (H, W) with zero-mean noise, its parameters drawn anew."""
    if noise.kind == "none":
        return image
    if noise.kind == "gaussian":
        variance: np.ndarray | float = (rng.uniform(*noise.sigma) * GREY) ** 2
        if noise.signal_share[1]:
            share = rng.uniform(*noise.signal_share)
            variance = variance * (1 - share + 2 * share * np.clip(image, 0, None))
    elif noise.kind == "poisson_gaussian":
        levels = rng.uniform(*noise.gain) * np.clip(image, 0, None) / GREY + rng.uniform(*noise.offset)
        variance = levels * GREY**2
    else:
        # the "crappifier" of PSSR (Fang et al. 2021): brighter neighbourhoods are noisier
        variance = noise.strength * np.clip(ndimage.gaussian_filter(image, 3), 0, None)
    normal = rng.standard_normal(image.shape, dtype=np.float32)
    if noise.blur_px[1]:
        normal = _blurred(normal, rng.uniform(*noise.blur_px))
    return image + np.sqrt(variance, dtype=np.float32) * normal


def _blurred(normal: np.ndarray, sigma: float) -> np.ndarray:
    """Return white noise of variance 1, (H, W), blurred by ``sigma`` pixels; its variance stays 1."""
    # around the edges: noise has the same variance everywhere
    blurred = ndimage.gaussian_filter(normal, sigma, mode="wrap")
    pulse = np.zeros(2 * math.ceil(4 * sigma) + 1)
    pulse[len(pulse) // 2] = 1
    kernel = ndimage.gaussian_filter1d(pulse, sigma, mode="constant")
    return blurred / np.float32((kernel**2).sum())

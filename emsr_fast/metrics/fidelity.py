"""Fidelity to a reference whose contrast may differ: scans of one specimen never agree in gain and offset."""

from __future__ import annotations

import math

import numpy as np


def affine_fit(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return ``gain * image + offset`` in float64, the least-squares fit to ``reference`` of the same shape.

    A constant image has no gain to fit and becomes the reference's mean.
    """
    if image.shape != reference.shape:
        raise ValueError(f"image is {image.shape} and reference {reference.shape}; they must be equal")
    moving, fixed = image.astype(np.float64), reference.astype(np.float64)
    centred = moving - moving.mean()
    power = float((centred**2).sum())
    gain = float((centred * (fixed - fixed.mean())).sum()) / power if power > 0 else 0.0
    fitted: np.ndarray = gain * centred + fixed.mean()
    return fitted


def psnr_after_affine_fit(image: np.ndarray, reference: np.ndarray, data_range: float) -> float:
    """Return the peak signal-to-noise ratio in dB of ``image`` after ``affine_fit`` to ``reference``.

    Args:
        image: any shape, any gain and offset.
        reference: the same shape.
        data_range: the peak, in the reference's grey values; 255 for 8 bits.
    """
    error = float(((affine_fit(image, reference) - reference.astype(np.float64)) ** 2).mean())
    return math.inf if error == 0 else 10 * math.log10(data_range**2 / error)

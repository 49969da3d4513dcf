"""The demonstration: an original is reduced, and enlarged again by bicubic interpolation and by EMSR."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from emsr_fast.io.resize import bicubic, block_means
from emsr_fast.metrics import psnr_after_affine_fit
from emsr_fast.pictures.sheet import side_by_side


def degrade(volume: np.ndarray, scale: int) -> np.ndarray:
    """Return ``volume`` at a ``scale`` times coarser pixel in y and x: the mean of each scale x scale square.

    Args:
        volume: (Z, scale * Y, scale * X), unsigned integers; rounded half to even, dtype kept.

    Raises:
        ValueError: y or x is no multiple of ``scale``.
    """
    _, height, width = volume.shape
    if height % scale or width % scale:
        raise ValueError(f"images are {height}x{width}, which {scale} does not divide; crop them first")
    return block_means(volume, (1, scale, scale))


def demo_sheet(low: np.ndarray, super_resolved: np.ndarray, original: np.ndarray, path: str | Path) -> dict[str, float]:
    """Write the middle slice of all four volumes side by side; return the PSNR in dB over all slices.

    Args:
        low: (Z, Y, X) uint8, the degraded original.
        super_resolved: (Z, scale * Y, scale * X), made from ``low``.
        original: (Z, scale * Y, scale * X) uint8.
        path: the PNG.

    Returns:
        "bicubic" and "EMSR", each after an affine fit to the original with data range 255.
    """
    scale = original.shape[1] // low.shape[1]
    enlarged = np.stack([bicubic(image, scale) for image in low])
    decibels = {
        "bicubic": psnr_after_affine_fit(enlarged, original, 255),
        "EMSR": psnr_after_affine_fit(super_resolved, original, 255),
    }
    middle = len(low) // 2
    side_by_side(
        [
            ("LR, nearest", low[middle]),
            (f"bicubic, {decibels['bicubic']:.2f} dB", enlarged[middle]),
            (f"EMSR, {decibels['EMSR']:.2f} dB", super_resolved[middle]),
            ("original", original[middle]),
        ],
        path,
    )
    return decibels

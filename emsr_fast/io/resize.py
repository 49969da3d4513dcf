"""Images made larger or smaller by a whole factor; for any pixel size see resample.py."""

from __future__ import annotations

import numpy as np

from emsr_fast.io.selection import ZYX


def bicubic(image: np.ndarray, scale: int) -> np.ndarray:
    """Return ``image``, (H, W), enlarged to (scale * H, scale * W) float32 by bicubic interpolation, edges aligned.

    The kernel is that of Keys with a = -0.5.
    """
    # only pictures and figures need it
    from PIL import Image

    height, width = image.shape
    large = Image.fromarray(image.astype(np.float32)).resize((width * scale, height * scale), Image.Resampling.BICUBIC)
    return np.asarray(large)


def block_means(pixels: np.ndarray, factor: ZYX, accumulate: type[np.floating] = np.float64) -> np.ndarray:
    """Return the means of ``factor`` voxels each; at odd ends, of the voxels that there are.

    Args:
        pixels: (Z, Y, X); the dtype is kept, integers are rounded half to even.
        factor: voxels that become one, (z, y, x).
        accumulate: the dtype in which sums are made.
    """
    deep, tall, wide = factor
    # repeating the last voxel leaves the mean of those that there are
    padded = np.pad(pixels, [(0, -size % f) for size, f in zip(pixels.shape, factor, strict=True)], mode="edge")
    depth, height, width = (size // f for size, f in zip(padded.shape, factor, strict=True))
    means = np.empty((depth, height, width), pixels.dtype)
    for z in range(depth):
        # slice by slice: sums need eight bytes a voxel
        part = padded[z * deep : (z + 1) * deep].reshape(deep, height, tall, width, wide)
        mean = part.mean(axis=(0, 2, 4), dtype=accumulate)
        means[z] = np.rint(mean) if pixels.dtype.kind in "ui" else mean
    return means

"""Denoising of references, for the strategy "denoised"; it runs once, and the result is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tifffile

from emsr_fast.errors import BackendError, VolumeError
from emsr_fast.io.locations import within
from emsr_fast.publish import Staging


def kept_under(
    path: Path,
    kind: str,
    folder: Path,
    intensity_range: str | None = None,
    channel: int | None = None,
    keep_data_bar: bool = False,
) -> Path:
    """Return where the denoised volume of ``path`` is kept; the name changes with its files, their sizes and dates."""
    file, inside = within(path)
    members = sorted(file.rglob("*")) if file.is_dir() else [file]
    dates = [(member.name, member.stat().st_size, member.stat().st_mtime_ns) for member in members]
    more = [*([intensity_range] if intensity_range else []), *([channel] if channel is not None else [])]
    more += ["with data bar"] if keep_data_bar else []
    key = json.dumps([str(file.resolve()), inside, dates, kind, *more])
    return folder / f"{path.stem}.{kind}.{hashlib.sha256(key.encode()).hexdigest()[:12]}.tif"


def denoise_slice(image: np.ndarray, kind: str) -> np.ndarray:
    """Return ``image``, (H, W) float in [0, 1], denoised, float32, not clipped.

    Args:
        kind: "nlm" (non-local means) or "wavelet" (BayesShrink), both of scikit-image, or "bm3d", a package of its own
            whose licence allows research only. The noise level is estimated from the image.

    Raises:
        BackendError: bm3d is not installed.
    """
    from skimage.restoration import denoise_nl_means, denoise_wavelet, estimate_sigma

    sigma = float(estimate_sigma(image))
    if kind == "nlm":
        result = denoise_nl_means(image, patch_size=5, patch_distance=6, h=0.8 * sigma, sigma=sigma, fast_mode=True)
    elif kind == "wavelet":
        result = denoise_wavelet(image, sigma=sigma, rescale_sigma=False)
    else:
        try:
            from bm3d import bm3d
        except ImportError as error:
            raise BackendError("denoiser bm3d is not installed (pip install bm3d); or use nlm or wavelet") from error
        result = bm3d(image, sigma)
    return np.asarray(result, dtype=np.float32)


def write_stack(path: Path, images: Iterable[np.ndarray]) -> None:
    """Write ``images``, each (H, W) float32, as the TIFF stack ``path``, which appears when complete.

    Raises:
        VolumeError: the disk is full or the folder unwritable.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with Staging(path.resolve()) as part, tifffile.TiffWriter(part, bigtiff=True) as file:
            for image in images:
                file.write(image, photometric="minisblack", contiguous=True)
    except OSError as error:
        raise VolumeError(f"denoised reference {path} cannot be written: {error.strerror}") from error

"""The figures of one sample: how close an image is to the reference, and how fine its details are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from emsr_fast.evaluate.inputs import EvaluationInputs
from emsr_fast.evaluate.samples import Sample
from emsr_fast.io.intensity import Normalisation
from emsr_fast.metrics import (
    CutOff,
    Decorrelation,
    RingCorrelation,
    atrous_errors,
    cut_off,
    decorrelation,
    gradient_error,
    ms_ssim_after_affine_fit,
    psnr_after_affine_fit,
    ring_correlation,
    seams,
    single_image_ring_correlation,
    ssim_after_affine_fit,
)

# columns of slices.csv and what they mean, in the order in which they are shown
DEFINITIONS = {
    "psnr_db": "peak signal-to-noise ratio in dB; higher is closer",
    "ssim": "structural similarity, Gaussian window of sigma 1.5 px; 1 is equal",
    "ms_ssim": "structural similarity over five scales; 1 is equal; empty below 161 px",
    "gradient_error": "RMS error of slopes, relative to the slopes of the fixed image; 0 is equal",
    "atrous_error_1": "RMS error of wavelet details of about 2 px, relative to those of the fixed image",
    "atrous_error_2": "the same, details of about 4 px",
    "atrous_error_3": "the same, details of about 8 px",
    "lpips": "learned perceptual distance (AlexNet), grey taken as RGB; 0 is equal",
    "shift_px": "displacement against the fixed image, by phase correlation; above 0.5 px it spoils all the others",
    "frc_px": "period in px where the Fourier ring correlation falls below 1/7",
    "frc_nm": "the same in nm",
    "single_frc_px": "the same for the two halves of a chessboard of one image",
    "single_frc_nm": "the same in nm",
    "decorrelation_px": "finest period in px found by decorrelation analysis",
    "decorrelation_nm": "the same in nm",
    "seam_ratio": "jump across tile borders, relative to that elsewhere; 1 is seamless",
    "seam_z": "the same in standard errors; above 3 borders show",
    "clipped_fraction": "share of pixels at the ends of the dtype's range",
}
# that have rows of their own, in this order
IMAGES = ("sr", "bicubic", "reference", "second scan")
# smallest sides that the measures take
_FRC_SIDE, _SINGLE_SIDE, _DECORRELATION_SIDE, _SHIFT_SIDE = 16, 32, 64, 16

Lpips = Callable[[np.ndarray, np.ndarray, float, float], float | None]


@dataclass(frozen=True)
class SampleFigures:
    """The figures of a sample: rows of the table, and curves that are added up over the samples."""

    rows: list[dict[str, Any]]  # one for each image: "sr", "bicubic", "reference", "second scan"
    ring_curves: dict[str, RingCorrelation]  # by image, against the second scan or the reference
    single_curves: dict[str, RingCorrelation]  # by image
    decorrelations: dict[str, Decorrelation]  # by image


def measure_sample(
    images: Mapping[str, np.ndarray], sample: Sample, inputs: EvaluationInputs, lpips: Lpips | None
) -> SampleFigures:
    """Return the figures of ``images``, which are from ``inputs.read(sample)`` and not constant."""
    found = SampleFigures([], {}, {}, {})
    partner = "second scan" if "second scan" in images else "reference" if "reference" in images else None
    for name in IMAGES:
        if name not in images:
            continue
        image, side = images[name], min(sample.shape)
        row: dict[str, Any] = {"image": name}
        fixed = inputs.fixed_name
        if fixed is not None and name in ("sr", "bicubic"):
            row |= _fidelity(image, images[fixed], inputs.grey, lpips)
        # the reference and the second scan are correlated too: what two scans share is the most that can be found
        if partner is not None and name != partner and side >= _FRC_SIDE:
            found.ring_curves[name] = ring_correlation(image, images[partner])
            row |= _period("frc", cut_off(found.ring_curves[name]), inputs.pixel_nm)
        if "second scan" not in images and side >= _SINGLE_SIDE:
            found.single_curves[name] = single_image_ring_correlation(image)
            row |= _period("single_frc", cut_off(found.single_curves[name]), inputs.pixel_nm)
        if side >= _DECORRELATION_SIDE:
            found.decorrelations[name] = decorrelation(image)
            row |= _period("decorrelation", found.decorrelations[name], inputs.pixel_nm)
        if name == "sr":
            row |= _seams(image, sample, inputs)
        if name != "bicubic" and image.dtype.kind in "ui":
            limits = np.iinfo(image.dtype)
            row["clipped_fraction"] = float(((image == limits.min) | (image == limits.max)).mean())
        found.rows.append(row)
    return found


def _fidelity(image: np.ndarray, fixed: np.ndarray, grey: Normalisation, lpips: Lpips | None) -> dict[str, Any]:
    data_range = grey.high - grey.low
    row: dict[str, Any] = {
        "psnr_db": psnr_after_affine_fit(image, fixed, data_range),
        "ssim": ssim_after_affine_fit(image, fixed, data_range),
        "ms_ssim": ms_ssim_after_affine_fit(image, fixed, data_range),
        "gradient_error": gradient_error(image, fixed),
    }
    row |= {f"atrous_error_{level}": error for level, error in enumerate(atrous_errors(image, fixed), start=1)}
    if lpips is not None:
        row["lpips"] = lpips(image, fixed, grey.low, grey.high)
    if min(image.shape) >= _SHIFT_SIDE:
        row["shift_px"] = _shift(image, fixed)
    return row


def _shift(image: np.ndarray, fixed: np.ndarray) -> float:
    from skimage.registration import phase_cross_correlation

    shift, _, _ = phase_cross_correlation(
        fixed.astype(np.float64), image.astype(np.float64), upsample_factor=20, normalization=None
    )
    return float(np.hypot(*shift))


def _period(name: str, found: CutOff | Decorrelation, pixel_nm: float | None) -> dict[str, float | None]:
    period = found.resolution_px
    known = period is not None and pixel_nm is not None
    return {f"{name}_px": period, f"{name}_nm": period * pixel_nm if known else None}  # type: ignore[operator]


def _seams(image: np.ndarray, sample: Sample, inputs: EvaluationInputs) -> dict[str, Any]:
    tile, scale = inputs.provenance.tile, inputs.provenance.scale or inputs.scale
    if tile is None or scale is None:
        return {}
    found = seams(image, tile, scale, (sample.rows.start, sample.cols.start))
    return {} if found is None else {"seam_ratio": found.ratio, "seam_z": found.z}

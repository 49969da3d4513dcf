"""How close an image is to a reference, and how fine its details are."""

from emsr_fast.metrics.decorrelation import Decorrelation, decorrelation
from emsr_fast.metrics.fidelity import (
    affine_coefficients,
    affine_fit,
    atrous_errors,
    gradient_error,
    ms_ssim_after_affine_fit,
    psnr_after_affine_fit,
    ssim_after_affine_fit,
)
from emsr_fast.metrics.frc import (
    CutOff,
    RingCorrelation,
    added,
    cut_off,
    ring_correlation,
    single_image_ring_correlation,
)
from emsr_fast.metrics.seams import Seams, seams

__all__ = [
    "CutOff",
    "Decorrelation",
    "RingCorrelation",
    "Seams",
    "added",
    "affine_coefficients",
    "affine_fit",
    "atrous_errors",
    "cut_off",
    "decorrelation",
    "gradient_error",
    "ms_ssim_after_affine_fit",
    "psnr_after_affine_fit",
    "ring_correlation",
    "seams",
    "single_image_ring_correlation",
    "ssim_after_affine_fit",
]

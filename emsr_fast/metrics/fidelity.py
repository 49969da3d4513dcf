"""Fidelity to a reference of other contrast: scans of one specimen never agree in gain and offset."""

from __future__ import annotations

import math

import numpy as np

_SSIM_SIDE = 11
# four halvings must leave the window of 11 px
_MS_SSIM_SIDE = 161
# of the data range: far below what float32 pixels can differ by, far above what float64 rounds
_ROUNDING = 1e-12


def affine_coefficients(image: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Return gain and offset of the least-squares fit of ``image`` to ``reference`` of the same shape.

    A constant image has no gain to fit: 0, and the reference's mean.
    """
    if image.shape != reference.shape:
        raise ValueError(f"image is {image.shape} and reference {reference.shape}; they must be equal")
    moving, fixed = image.astype(np.float64), reference.astype(np.float64)
    centre, centred = moving.mean(), moving - moving.mean()
    power = float((centred**2).sum())
    gain = float((centred * (fixed - fixed.mean())).sum()) / power if power > 0 else 0.0
    return gain, float(fixed.mean() - gain * centre)


def affine_fit(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return ``gain * image + offset`` in float64, the least-squares fit to ``reference`` of the same shape.

    A constant image has no gain to fit and becomes the reference's mean.
    """
    gain, offset = affine_coefficients(image, reference)
    fitted: np.ndarray = gain * image.astype(np.float64) + offset
    return fitted


def psnr_after_affine_fit(image: np.ndarray, reference: np.ndarray, data_range: float) -> float:
    """Return the peak signal-to-noise ratio in dB of ``image`` after ``affine_fit`` to ``reference``.

    Args:
        image: any shape, any gain and offset.
        reference: the same shape.
        data_range: the peak, in the reference's grey values; 255 for 8 bits.

    Infinite where both are identical after the fit, to float64 rounding.
    """
    error = float(((affine_fit(image, reference) - reference.astype(np.float64)) ** 2).mean())
    return math.inf if error <= (_ROUNDING * data_range) ** 2 else 10 * math.log10(data_range**2 / error)


def ssim_after_affine_fit(image: np.ndarray, reference: np.ndarray, data_range: float) -> float | None:
    """Return the structural similarity of ``image`` after ``affine_fit`` to ``reference``, 1 being equal.

    Gaussian window of sigma 1.5 px, as published. None where a side is below 11 px, the window.

    Args:
        image: (H, W), any gain and offset.
        reference: (H, W).
        data_range: of the reference's grey values; 255 for 8 bits.

    Source: Wang et al., IEEE Trans. Image Process. 13 (2004) 600; scikit-image.
    """
    from skimage.metrics import structural_similarity

    if min(reference.shape) < _SSIM_SIDE:
        return None
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    fixed = reference.astype(np.float64)
    return float(structural_similarity(affine_fit(image, reference), fixed, data_range=data_range, **options))


def ms_ssim_after_affine_fit(image: np.ndarray, reference: np.ndarray, data_range: float) -> float | None:
    """Return the structural similarity over five scales after ``affine_fit``; None where a side is below 161 px.

    Arguments as ``ssim_after_affine_fit``.

    Source: Wang et al., Asilomar 2003, 1398; torchmetrics.
    """
    import torch
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as measure

    if min(reference.shape) < _MS_SSIM_SIDE:
        return None
    fitted, fixed = torch.from_numpy(affine_fit(image, reference)), torch.from_numpy(reference.astype(np.float64))
    return float(measure(fitted[None, None], fixed[None, None], data_range=float(data_range)))


def gradient_error(image: np.ndarray, reference: np.ndarray) -> float:
    """Return the relative error of the gradients of ``image`` after ``affine_fit`` to ``reference``, both (H, W).

    The root mean square of the difference of gradients (central differences), divided by that of the reference's:
    0 is equal, 1 as wrong as a flat image; the reference's noise counts as error.
    """
    slopes = np.gradient(affine_fit(image, reference) - reference), np.gradient(reference.astype(np.float64))
    wrong, right = (float(sum((one**2).mean() for one in two)) for two in slopes)
    return math.sqrt(wrong / right) if right > 0 else math.inf if wrong else 0.0


def atrous_errors(image: np.ndarray, reference: np.ndarray, levels: int = 3) -> list[float]:
    """Return the relative error of the details of each à-trous level after ``affine_fit``, finest level first.

    As ``gradient_error``, of the wavelet details that the network sees: level n holds structures of about 2 ** n px.
    """
    import torch

    from emsr_fast.ops import atrous_details

    # mirrored edges: the wavelet sees zeros outside, which would be the strongest edge of all
    margin = 2 ** (levels + 2)
    stack = np.stack([affine_fit(image, reference) - reference, reference.astype(np.float64)])
    wide = np.pad(stack, ((0, 0), (margin, margin), (margin, margin)), mode="symmetric")
    details = atrous_details(torch.from_numpy(wide)[:, None], levels)[:, :, margin:-margin, margin:-margin]
    wrong, right = (details**2).mean(dim=(2, 3)).tolist()
    return [
        math.sqrt(one / other) if other > 0 else math.inf if one else 0.0
        for one, other in zip(wrong, right, strict=True)
    ]

"""How close an image is to a reference."""

from emsr_fast.metrics.fidelity import affine_fit, psnr_after_affine_fit

__all__ = ["affine_fit", "psnr_after_affine_fit"]

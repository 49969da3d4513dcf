"""À-trous wavelet details: public function, operator, gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from emsr_fast import _backends, _native
from emsr_fast.ops._operator import Operator
from emsr_fast.reference import atrous as reference


def atrous_details(x: Tensor, levels: int = 3, *, backend: str = "auto") -> Tensor:
    """Return the à-trous wavelet details of an image batch, (B, levels * C, H, W), finest level first.

    The image is blurred by a Gaussian of sigma 0.6 px, then smoothed ``levels`` times with a B3 spline whose taps lie
    1, 2, 4, ... px apart; the details are what each smoothing takes away. Every stage sees zeros outside the image.
    Differentiable any number of times.

    Args:
        x: image, (B, C, H, W), float16, bfloat16, float32 or float64; any strides; intensities usually in [0, 1].
        levels: number of wavelet levels, at least 1; level n looks 2 ** n px away. The kernels take up to 4.
        backend: "auto", or one of "cuda", "triton", "cpp", "reference".

    Returns:
        Details, contiguous, dtype and device of ``x``; channel ``n * C + c`` is level n + 1 of channel c.

    Raises:
        ValueError: ``x`` is not a batch of images, or ``levels`` is below 1.
        BackendError: ``backend`` was named and cannot run on ``x``.

    Source: starlet transform with the pre-blur of EMSR (arXiv 2401.08115).
    """
    if x.is_floating_point() and torch.is_autocast_enabled(x.device.type):
        # differences of nearly equal numbers: half precision would lose them
        x = x.float()
    return ATROUS_DETAILS(x, levels, backend=backend)


def _check(x: Tensor, levels: int) -> None:
    if x.dim() != 4:
        raise ValueError(f"x must be (B, C, H, W), got shape {tuple(x.shape)}")
    if min(x.shape[1:]) < 1:
        raise ValueError(f"x must have at least one channel, row and column, got shape {tuple(x.shape)}")
    if not x.is_floating_point():
        raise ValueError(f"x must be floating point, got {x.dtype}")
    if levels < 1:
        raise ValueError(f"levels must be at least 1, got {levels}")


def _limits(backend: str, x: Tensor, levels: int) -> str | None:
    most = _native.MAX_ATROUS_LEVELS or levels
    return f"the kernels have at most {most} levels, got {levels}" if levels > most else None


def _details_like(x: Tensor, levels: int) -> Tensor:
    b, c, h, w = x.shape
    return x.new_empty((b, levels * c, h, w))


def _image_like(grad: Tensor, levels: int) -> Tensor:
    b, c, h, w = grad.shape
    return grad.new_empty((b, c // levels, h, w))


def _triton(x: Tensor, out: Tensor, levels: int) -> None:
    from emsr_fast.kernels.triton import atrous

    atrous.atrous_details(x, out, levels)


def _triton_backward(grad: Tensor, out: Tensor, levels: int) -> None:
    from emsr_fast.kernels.triton import atrous

    atrous.atrous_details_backward(grad, out, levels)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, ctx.levels, backend = inputs
    # the gradient may be computed in another thread, which knows nothing of use_backend
    ctx.backend = _backends.as_asked(backend)


def _gradient(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    return torch.ops.emsr_fast.atrous_details_backward(grad, ctx.levels, ctx.backend), None, None


def _gradient_of_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    # the adjoint of the adjoint
    return torch.ops.emsr_fast.atrous_details(grad, ctx.levels, ctx.backend), None, None


ATROUS_DETAILS = Operator(
    name="atrous_details",
    schema="(Tensor x, int levels, str backend) -> Tensor",
    check=_check,
    like=_details_like,
    reference=reference.atrous_details,
    kernels={"cuda": _native.atrous_details, "triton": _triton, "cpp": _native.atrous_details},
    limits=_limits,
    remember=_remember,
    gradient=_gradient,
)
ATROUS_DETAILS_BACKWARD = Operator(
    name="atrous_details_backward",
    schema="(Tensor grad, int levels, str backend) -> Tensor",
    check=_check,
    like=_image_like,
    reference=reference.atrous_details_backward,
    kernels={
        "cuda": _native.atrous_details_backward,
        "triton": _triton_backward,
        "cpp": _native.atrous_details_backward,
    },
    limits=_limits,
    remember=_remember,
    gradient=_gradient_of_backward,
    public=False,
)

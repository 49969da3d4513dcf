"""The residual block: public function, operator for the kernel that does both convolutions at once."""

from __future__ import annotations

import torch
from torch import Tensor

from emsr_fast import _native
from emsr_fast.ops import _residual_gradient  # noqa: F401  registers what trains
from emsr_fast.ops._layout import dense_channels_last, features_like, on_sixteen_bytes
from emsr_fast.ops._operator import Operator, check_devices, check_images, wants_gradient
from emsr_fast.ops.conv3x3 import CONV3X3, conv3x3, why_not_hopper, why_not_precision
from emsr_fast.reference import residual_block as reference


def residual_block(x: Tensor, first: Tensor, second: Tensor, *, backend: str = "auto") -> Tensor:
    """Return x + conv(relu(conv(x, first)), second), (B, C, H, W): stride 1, zero padding 1, no bias.

    It is one kernel if "cuda" is named, else two of ``conv3x3``. Their gradient on a CPU is one for both: nothing is
    masked or added beside the kernels.

    Args:
        x: features, (B, C, H, W), any float dtype and strides.
        first: weight of the first convolution, (M, C, 3, 3); see ``conv3x3``.
        second: of the second, (C, M, 3, 3).
        backend: "auto", or one of "cuda", "triton", "cpp", "reference". "cuda" (64 channels in float16 or bfloat16,
            compute capability 9.0) is never chosen by "auto" until a GPU has confirmed it.

    Raises:
        ValueError: a shape does not fit.
        BackendError: ``backend`` was named and cannot run on ``x``.

    Source: EMSR (arXiv 2401.08115), its residual block.
    """
    _check(x, first, second)
    if trains_at_once(x, first, second, backend):
        out: Tensor = torch.ops.emsr_fast.residual_block_and_middle(x, first, second)[0]
        return out
    if at_once(x, first, second, backend):
        return RESIDUAL_BLOCK(x, first, second, backend=backend)
    between = conv3x3(x, first, activation="relu", backend=backend)
    return conv3x3(between, second, residual=x, backend=backend)


def at_once(x: Tensor, first: Tensor, second: Tensor, backend: str = "auto") -> bool:
    """Return whether ``residual_block`` runs as one kernel here, not as two convolutions.

    Raises:
        BackendError: ``backend`` was named and cannot run on ``x``.
    """
    return not wants_gradient(x, first, second) and RESIDUAL_BLOCK.choose(x, first, second, backend=backend) == "cuda"


def trains_at_once(x: Tensor, first: Tensor, second: Tensor, backend: str = "auto") -> bool:
    """Return whether a gradient is wanted here, and kernels have it for both convolutions at once."""
    whole = first.shape[0] % 16 == 0 and x.shape[1] % 16 == 0
    wanted = whole and wants_gradient(x, first, second)
    return wanted and CONV3X3.trains_on_cpu(x, first, "none", None, None, backend=backend)


def _check(x: Tensor, first: Tensor, second: Tensor) -> None:
    check_images(x)
    c = x.shape[1]
    if first.dim() != 4 or first.shape[0] < 1 or first.shape[1:] != (c, 3, 3):
        raise ValueError(f"first must be (M, {c}, 3, 3) for {c} channels, got shape {tuple(first.shape)}")
    if second.shape != (c, first.shape[0], 3, 3):
        raise ValueError(f"second must be {(c, first.shape[0], 3, 3)}, got shape {tuple(second.shape)}")
    check_devices(x, first=first, second=second)


def _limits(backend: str, x: Tensor, first: Tensor, second: Tensor) -> str | None:
    if backend != "cuda":
        # what keeps the others from running is for conv3x3 to say
        return None
    return why_not_precision(backend, x, first, second) or why_not_hopper(x, first.shape[1], first.shape[0])


def _cuda(x: Tensor, out: Tensor, first: Tensor, second: Tensor) -> None:
    weights = (on_sixteen_bytes(dense_channels_last(weight)) for weight in (first, second))
    _native.residual_block_cuda(on_sixteen_bytes(x), out, *weights)


def _as_two(x: Tensor, out: Tensor, first: Tensor, second: Tensor) -> None:
    out.copy_(conv3x3(conv3x3(x, first, activation="relu"), second, residual=x))


RESIDUAL_BLOCK = Operator(
    name="residual_block",
    schema="(Tensor x, Tensor first, Tensor second, str backend) -> Tensor",
    check=_check,
    like=lambda x, first, second: features_like(x, x.shape[1]),
    reference=reference.residual_block,
    kernels={"cuda": _cuda, "triton": _as_two, "cpp": _as_two},
    limits=_limits,
    on_request=("cuda",),
)

"""3x3 convolution with activation, residual or gate: public function, operator."""

from __future__ import annotations

import torch
from torch import Tensor

from emsr_fast import _backends, _native
from emsr_fast.ops import _conv3x3_gradient
from emsr_fast.ops._layout import dense_channels_last, features_like, on_sixteen_bytes, side_by_side
from emsr_fast.ops._operator import Operator, check_devices, check_images
from emsr_fast.ops._packed import PackedWeights
from emsr_fast.reference import conv3x3 as reference

ACTIVATIONS = ("none", "relu", "leaky_relu")


def conv3x3(
    x: Tensor,
    weight: Tensor,
    *,
    activation: str = "none",
    residual: Tensor | None = None,
    gate: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Return a 3x3 convolution of ``x``, (B, C_out, H, W), with activation, residual or gate.

    act(conv(x)), act(conv(x)) + residual, or gate + conv(x) * gate; stride 1, zero padding 1, no bias. Differentiable
    any number of times. On a CPU, kernels compute the first derivatives; what they do not have is PyTorch's: other
    devices and dtypes, second and forward derivatives, ``torch.func`` and autocast.

    Args:
        x: features, (B, C_in, H, W), any float dtype and strides.
        weight: (C_out, C_in, 3, 3). The kernels take multiples of 16 channels, or C_in < 16, or C_out = 1; on a CPU
            float32, with a packed form (7 times its size where both are 16 or more) that lives as long as the tensor;
            on a GPU float16 and bfloat16, C_in up to 14, 16, 32 or 64, fastest with weights that are channels last.
        activation: "none", "relu" or "leaky_relu" (slope 0.2).
        residual: added at the end, (B, C_out, H, W).
        gate: (B, C_out, H, W), in place of ``residual`` and ``activation``.
        backend: "auto", or one of "cuda", "triton", "cpp", "reference". "cuda" (64 to 64 channels, compute capability
            9.0) is never chosen by "auto" until a GPU has confirmed it.

    Returns:
        Features, channels last from the kernels. On a CPU, a pixel that is not finite spoils the 8x8 outputs around it.

    Raises:
        ValueError: a shape or a combination of arguments does not fit.
        BackendError: ``backend`` was named and cannot run on ``x``.

    Source: Winograd's minimal filtering, Lavin and Gray, arXiv 1509.09308; F(6x6, 3x3) at 0, +-1/2, +-1, +-2, infinity.
    """
    return CONV3X3(x, weight, activation, residual, gate, backend=backend)


def _check(x: Tensor, weight: Tensor, activation: str, residual: Tensor | None, gate: Tensor | None) -> None:
    check_images(x)
    b, c, h, w = x.shape
    outputs = weight.shape[0] if weight.dim() == 4 else 0
    if outputs < 1 or weight.shape != (outputs, c, 3, 3):
        raise ValueError(f"weight must be (C_out, {c}, 3, 3) for {c} channels, got shape {tuple(weight.shape)}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {ACTIVATIONS}, got {activation!r}")
    if gate is not None and (residual is not None or activation != "none"):
        raise ValueError("gate takes the place of residual and activation: give one of them")
    check_devices(x, weight=weight, residual=residual, gate=gate)
    for name, other in (("residual", residual), ("gate", gate)):
        if other is not None and other.shape != (b, outputs, h, w):
            raise ValueError(f"{name} must have shape {(b, outputs, h, w)}, got {tuple(other.shape)}")


def _limits(
    backend: str, x: Tensor, weight: Tensor, activation: str, residual: Tensor | None, gate: Tensor | None
) -> str | None:
    if reason := why_not_precision(backend, x, weight, residual, gate):
        return reason
    outputs, inputs = weight.shape[:2]
    if not _conv3x3_gradient.kernel_fits(outputs, inputs):
        return f"channels must be multiples of 16, or below 16 going in, or 16 and more to 1, got {inputs} to {outputs}"
    if backend == "cpp":
        return None
    if inputs > 14 and inputs not in (16, 32, 64):
        return f"the kernel has up to 14, 16, 32 or 64 channels going in, got {inputs}"
    return why_not_hopper(x, inputs, outputs) if backend == "cuda" else None


def why_not_hopper(x: Tensor, inputs: int, outputs: int) -> str | None:
    """Return why the CUDA kernel cannot run, whatever the precision, or None."""
    if (inputs, outputs) != (64, 64):
        return f"the CUDA kernel has 64 channels going in and coming out, got {inputs} to {outputs}"
    capability = _backends.compute_capability(x.device) if x.is_cuda else (9, 0)
    if capability != (9, 0):
        return f"the CUDA kernel needs compute capability 9.0, this GPU has {'.'.join(map(str, capability))}"
    return None


def why_not_precision(backend: str, x: Tensor, *others: Tensor | None) -> str | None:
    """Return why the kernel of ``backend`` cannot convolve ``x`` with ``others`` in their precision, or None."""
    if torch.is_autocast_enabled(x.device.type):
        return "autocast chooses the precision of convolutions"
    dtype = torch.float32 if backend == "cpp" else x.dtype
    if backend != "cpp" and dtype == torch.float32:
        return "the kernel multiplies in float16 or bfloat16: in TF32, float32 would lose 13 of its 24 bits"
    for t in (x, *others):
        if t is not None and t.dtype != dtype:
            found = "the kernel computes in float32" if backend == "cpp" else f"x is {dtype}"
            return f"{found}, not every tensor is"
    return None


def _cpp(x: Tensor, out: Tensor, weight: Tensor, activation: str, residual: Tensor | None, gate: Tensor | None) -> None:
    other = gate if residual is None else residual
    _native.conv3x3(
        x if x.shape[1] < 16 else side_by_side(x),
        out,
        None if other is None else side_by_side(other),
        PACKED.get(weight),
        ACTIVATIONS.index(activation),
        gate is not None,
    )


def _cuda(
    x: Tensor, out: Tensor, weight: Tensor, activation: str, residual: Tensor | None, gate: Tensor | None
) -> None:
    other = gate if residual is None else residual
    _native.conv3x3_cuda(
        on_sixteen_bytes(x),
        out,
        None if other is None else on_sixteen_bytes(other),
        on_sixteen_bytes(dense_channels_last(weight)),
        ACTIVATIONS.index(activation),
        gate is not None,
    )


def _triton(
    x: Tensor, out: Tensor, weight: Tensor, activation: str, residual: Tensor | None, gate: Tensor | None
) -> None:
    from emsr_fast.kernels.triton import conv3x3

    other = gate if residual is None else residual
    conv3x3.conv3x3(
        x if x.shape[1] < 16 else dense_channels_last(x),
        out,
        None if other is None else dense_channels_last(other),
        dense_channels_last(weight),
        activation,
        gate is not None,
    )


PACKED = PackedWeights(_conv3x3_gradient.pack)  # by weight
CONV3X3 = Operator(
    name="conv3x3",
    schema="(Tensor x, Tensor weight, str activation, Tensor? residual, Tensor? gate, str backend) -> Tensor",
    check=_check,
    like=lambda x, weight, *_: features_like(x, weight.shape[0]),
    reference=reference.conv3x3,
    kernels={"cuda": _cuda, "triton": _triton, "cpp": _cpp},
    limits=_limits,
    on_request=("cuda",),
    remember=_conv3x3_gradient.remember,
    gradient=_conv3x3_gradient.gradient,
    gradient_on=("cpp",),
)

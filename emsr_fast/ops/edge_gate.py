"""The gate that edge attention makes from edge features: public function, operator."""

from __future__ import annotations

import torch
from torch import Tensor

from emsr_fast import _native
from emsr_fast.ops import _edge_gate_gradient, _residual_gradient  # noqa: F401  they register what trains
from emsr_fast.ops._layout import dense_channels_last, features_like, side_by_side
from emsr_fast.ops._operator import Operator, check_images, check_weights, wants_gradient
from emsr_fast.ops.conv3x3 import PACKED, why_not_precision
from emsr_fast.reference import edge_gate as reference


def edge_gate(x: Tensor, k1: Tensor, k2: Tensor, bias: Tensor, k3: Tensor, *, backend: str = "auto") -> Tensor:
    """Return k3(x) * sigmoid(k2(leaky_relu(k1(x))) + bias), (B, C, H, W) from edge features of that shape.

    If a gradient is needed, on a CPU each step is a kernel, and what it wrote is kept; else PyTorch's own are run.

    Args:
        x: edge features, (B, C, H, W), any float dtype and strides.
        k1, k3: 3x3 convolutions, (C, C, 3, 3), zero padding 1.
        k2: 1x1 convolution, (C, C, 1, 1). The leaky ReLU in front of it has slope 0.2.
        bias: of k2, (C).
        backend: "auto", or one of "triton", "cpp", "reference". The kernels take multiples of 16 channels and float32
            on a CPU, 16, 32 or 64 channels and float16 or bfloat16 on a GPU.

    Raises:
        ValueError: a shape does not fit.
        BackendError: ``backend`` was named and cannot run on ``x``.

    Source: EMSR (arXiv 2401.08115), its edge attention before the last convolution.
    """
    if wants_gradient(x, k1, k2, bias, k3) and EDGE_GATE.trains_on_cpu(x, k1, k2, bias, k3, backend=backend):
        out: Tensor = torch.ops.emsr_fast.edge_gate_and_steps(x, k1, k2, bias, k3)[0]
        return out
    return EDGE_GATE(x, k1, k2, bias, k3, backend=backend)


def _check(x: Tensor, k1: Tensor, k2: Tensor, bias: Tensor, k3: Tensor) -> None:
    check_images(x)
    c = x.shape[1]
    check_weights(x, k1=(k1, (c, c, 3, 3)), k2=(k2, (c, c, 1, 1)), bias=(bias, (c,)), k3=(k3, (c, c, 3, 3)))


def _limits(backend: str, x: Tensor, *weights: Tensor) -> str | None:
    if reason := why_not_precision(backend, x, *weights):
        return reason
    if x.shape[1] % 16:
        return f"channels must be a multiple of 16, got {x.shape[1]}"
    if x.shape[1] not in (16, 32, 64) and backend != "cpp":
        return f"the kernel has 16, 32 or 64 channels, got {x.shape[1]}"
    return None


def _cpp(x: Tensor, out: Tensor, k1: Tensor, k2: Tensor, bias: Tensor, k3: Tensor) -> None:
    _native.edge_gate(side_by_side(x), out, PACKED.get(k1), k2.contiguous(), bias.contiguous(), PACKED.get(k3))


def _triton(x: Tensor, out: Tensor, k1: Tensor, k2: Tensor, bias: Tensor, k3: Tensor) -> None:
    from emsr_fast.kernels.triton import edge_gate

    weights = dense_channels_last(k1), k2.contiguous(), bias.contiguous(), dense_channels_last(k3)
    edge_gate.edge_gate(dense_channels_last(x), out, _like(x), *weights)


def _like(x: Tensor, *weights: Tensor) -> Tensor:
    return features_like(x, x.shape[1])


EDGE_GATE = Operator(
    name="edge_gate",
    schema="(Tensor x, Tensor k1, Tensor k2, Tensor bias, Tensor k3, str backend) -> Tensor",
    check=_check,
    like=_like,
    reference=reference.edge_gate,
    kernels={"triton": _triton, "cpp": _cpp},
    limits=_limits,
)

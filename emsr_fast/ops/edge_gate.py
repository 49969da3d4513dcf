"""What edge features say to amplify: public function, torch.library op."""

from __future__ import annotations

import torch
from torch import Tensor

from emsr_fast import _dispatch, _native
from emsr_fast.ops._layout import channels_last, dense_channels_last, features_like, side_by_side
from emsr_fast.ops._library import register
from emsr_fast.ops.conv3x3 import PACKED, limits_of_precision, wants_gradient
from emsr_fast.reference import edge_gate as reference


def edge_gate(x: Tensor, k1: Tensor, k2: Tensor, bias: Tensor, k3: Tensor, *, backend: str = "auto") -> Tensor:
    """Return k3(x) * sigmoid(k2(leaky_relu(k1(x))) + bias), (B, C, H, W) from edge features of that shape.

    Where a gradient is wanted, PyTorch's own convolutions compute it, whatever the backend.

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
    _check(x, k1, k2, bias, k3)
    tensors = (x, k1, k2, bias, k3)
    if wants_gradient(*tensors) or _choose(*tensors, backend) == "reference":
        return reference.edge_gate(*tensors)
    return torch.ops.emsr_fast.edge_gate(*tensors, backend)


def _check(x: Tensor, k1: Tensor, k2: Tensor, bias: Tensor, k3: Tensor) -> None:
    if x.dim() != 4 or min(x.shape[1:]) < 1:
        raise ValueError(f"x must be (B, C, H, W), at least one channel, row and column, got shape {tuple(x.shape)}")
    c = x.shape[1]
    shapes = (("k1", k1, (c, c, 3, 3)), ("k2", k2, (c, c, 1, 1)), ("bias", bias, (c,)), ("k3", k3, (c, c, 3, 3)))
    for name, weight, shape in shapes:
        if tuple(weight.shape) != shape:
            raise ValueError(f"{name} must have shape {shape} for {c} channels, got {tuple(weight.shape)}")
        if weight.device != x.device:
            raise ValueError(f"{name} is on {weight.device}, x on {x.device}: move both to one device")


def _choose(x: Tensor, k1: Tensor, k2: Tensor, bias: Tensor, k3: Tensor, backend: str) -> str:
    limits = None
    if x.shape[1] % 16:
        limits = f"channels must be a multiple of 16, got {x.shape[1]}"
    elif x.shape[1] not in (16, 32, 64) and x.is_cuda:
        limits = f"the kernel has 16, 32 or 64 channels, got {x.shape[1]}"
    return _dispatch.choose("edge_gate", x, backend, limits_of_precision([x, k1, k2, bias, k3], limits))


def _run(x: Tensor, k1: Tensor, k2: Tensor, bias: Tensor, k3: Tensor, backend: str) -> Tensor:
    # again: the operator can be called without the function above, and C++ trusts every shape
    _check(x, k1, k2, bias, k3)
    chosen = _choose(x, k1, k2, bias, k3, backend)
    if chosen == "reference":
        return channels_last(reference.edge_gate(x, k1, k2, bias, k3))
    out = _out_like(x)
    if chosen == "triton":
        from emsr_fast.kernels.triton import edge_gate as triton_edge_gate

        weights = dense_channels_last(k1), k2.contiguous(), bias.contiguous(), dense_channels_last(k3)
        triton_edge_gate.edge_gate(dense_channels_last(x), out, _out_like(x), *weights)
        return out
    _native.edge_gate(side_by_side(x), out, PACKED.get(k1), k2.contiguous(), bias.contiguous(), PACKED.get(k3))
    return out


def _out_like(x: Tensor, *rest: object) -> Tensor:
    return features_like(x, x.shape[1])


register(
    "edge_gate", "(Tensor x, Tensor k1, Tensor k2, Tensor bias, Tensor k3, str backend) -> Tensor", _run, _out_like
)

"""The edge gate in Triton: two launches of the strip kernel of ``conv3x3``.

The first answers: sigmoid(k2(leaky_relu(k1(x))) + bias), with k2 as a product of the sums that are in registers. The
second multiplies k3(x) with the answer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from emsr_fast.kernels.triton.conv3x3 import launch_strip


def edge_gate(x: Tensor, out: Tensor, answer: Tensor, k1: Tensor, k2: Tensor, bias: Tensor, k3: Tensor) -> None:
    """Write k3(x) * sigmoid(k2(leaky_relu(k1(x))) + bias) into ``out``, (B, C, H, W) as ``x``; C is 16, 32 or 64.

    All of one dtype, float16 or bfloat16, and dense channels last; ``answer`` is scratch of the shape of ``out``.
    """
    if x.numel() == 0:
        return
    with torch.cuda.device_of(x):
        launch_strip(x, k1, answer, None, "ask", "", k2, bias)
        launch_strip(x, k3, out, answer, "none", "times")

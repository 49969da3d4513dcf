"""The gradient of the transformer block: on a CPU with kernels for what happens inside the windows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from emsr_fast import _native
from emsr_fast.ops._layout import features_like


def kernel_fits(x: Tensor, parameters: Sequence[Tensor], heads: int, window: int) -> bool:
    """Return whether the kernels can attend: float32 on a CPU, whole windows."""
    if _native.why_no_cpu() or not x.is_cpu or window != _native.WINDOW:
        return False
    whole = x.shape[2] % window == 0 and x.shape[3] % window == 0 and x.shape[0] > 0
    whole = whole and x.shape[1] % 16 == 0 and parameters[7].shape[0] % 16 == 0
    return whole and all(t.dtype == torch.float32 for t in (x, *parameters))


def gradients(grad: Tensor, x: Tensor, parameters: Sequence[Tensor], heads: int) -> list[Tensor]:
    """Return the gradients of x and the 11 parameters; see ``reference.window_attention_backward``."""
    w1, b1, w_qkv, w_proj, b_proj, w2, b2, w_fc1, b_fc1, w_fc2, _ = parameters
    b, c, h, w = x.shape

    def tokens_of(image: Tensor) -> Tensor:
        return image.permute(0, 2, 3, 1).reshape(-1, c)

    def image_of(tokens: Tensor) -> Tensor:
        return tokens.view(b, h, w, -1).permute(0, 3, 1, 2)

    tokens = tokens_of(x)
    normed1, mean1, rstd1 = torch.native_layer_norm(tokens, [c], w1, b1, 1e-5)
    qkv = _native.linear(normed1, w_qkv)
    mixed = features_like(x, c)
    _native.attend_windows(image_of(qkv), mixed, heads)
    attended = tokens_of(mixed)
    middle = _native.linear(attended, w_proj, b_proj).add_(tokens)
    normed2, mean2, rstd2 = torch.native_layer_norm(middle, [c], w2, b2, 1e-5)
    hidden = _native.linear(normed2, w_fc1, b_fc1, relu=True)

    g_out = tokens_of(grad)
    g_hidden = torch.ops.aten.threshold_backward(_native.linear(g_out, w_fc2.t()), hidden, 0)
    g_middle, g_w2, g_b2 = _layer_norm_backward(_native.linear(g_hidden, w_fc1.t()), middle, mean2, rstd2, w2, b2)
    g_middle.add_(g_out)
    g_mixed = image_of(_native.linear(g_middle, w_proj.t()))
    g_qkv = torch.empty_like(qkv)
    _native.attend_windows_backward(image_of(qkv), g_mixed, image_of(g_qkv), heads)
    g_tokens, g_w1, g_b1 = _layer_norm_backward(_native.linear(g_qkv, w_qkv.t()), tokens, mean1, rstd1, w1, b1)
    return [
        image_of(g_tokens.add_(g_middle)),
        *(
            g_w1,
            g_b1,
            _native.linear_weight_gradient(normed1, g_qkv),
            _native.linear_weight_gradient(attended, g_middle),
            g_middle.sum(0),
        ),
        *(
            g_w2,
            g_b2,
            _native.linear_weight_gradient(normed2, g_hidden),
            g_hidden.sum(0),
            _native.linear_weight_gradient(hidden, g_out),
            g_out.sum(0),
        ),
    ]


def _layer_norm_backward(
    grad: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.ops.aten.native_layer_norm_backward(
        grad, x, [x.shape[-1]], mean, rstd, weight, bias, [True, True, True]
    )

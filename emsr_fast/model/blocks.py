"""The parts of the EMSR network; every 3x3 convolution is zero-padded and has no bias."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from emsr_fast.model.config import EmsrConfig
from emsr_fast.ops import atrous_details, conv3x3, edge_gate, residual_block, window_attention
from emsr_fast.ops._layout import concatenated
from emsr_fast.ops.residual_block import at_once, trains_at_once


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution of stride 1, zero padding 1, no bias, with activation, residual or gate."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, kernel_size=3, padding=1, bias=False)

    def forward(
        self, x: Tensor, *, activation: str = "none", residual: Tensor | None = None, gate: Tensor | None = None
    ) -> Tensor:
        """Return act(conv(x)), plus ``residual``; or gate + conv(x) * gate."""
        return conv3x3(x, self.weight, activation=activation, residual=residual, gate=gate)


class ResidualBlock(nn.Module):
    """conv2(relu(conv1(x))) + x, (B, C, H, W) to the same shape."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = Conv3x3(features, features)
        self.conv2 = Conv3x3(features, features)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.conv1.weight, self.conv2.weight
        if at_once(x, *weights) if x.is_cuda else torch.is_grad_enabled() and self._trains_at_once(x):
            return residual_block(x, *weights)
        # by its modules, whose hooks are called
        return self.conv2(self.conv1(x, activation="relu"), residual=x)

    def _trains_at_once(self, x: Tensor) -> bool:
        layers = self.conv1, self.conv2
        hooks = any(layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks for layer in layers)
        return not hooks and trains_at_once(x, self.conv1.weight, self.conv2.weight)


class EdgeAttention(nn.Module):
    """c + a * c with a = k4(k3(w) * sigmoid(k2(leaky_relu(k1(w))))): edge features w choose what to amplify."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.k1 = Conv3x3(features, features)
        self.k2 = nn.Conv2d(features, features, kernel_size=1)
        self.k3 = Conv3x3(features, features)
        self.k4 = Conv3x3(features, features)

    def forward(self, w: Tensor, c: Tensor) -> Tensor:
        """Return coarse features (B, C, H, W) from ``c`` and edge features ``w``, all of one shape."""
        assert self.k2.bias is not None  # for the type checker: the layer above has one
        edges = edge_gate(w, self.k1.weight, self.k2.weight, self.k2.bias, self.k3.weight)
        return self.k4(edges, gate=c)


class ToImage(nn.Sequential):
    """conv(relu(conv(x))), (B, C, H, W) to the image (B, 1, H, W) that the features would make."""

    def __init__(self, features: int) -> None:
        super().__init__(Conv3x3(features, features), nn.ReLU(), Conv3x3(features, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self[2](self[0](x, activation="relu"))


class WindowTransformer(nn.Module):
    """The pre-norm transformer block over 4x4 windows, (B, C, H, W) to the same shape."""

    def __init__(self, config: EmsrConfig) -> None:
        super().__init__()
        c, hidden = config.features, config.features * config.mlp_ratio
        self.heads, self.window, self.fit = config.heads, config.window, config.window_fit
        self.norm1 = nn.LayerNorm(c, eps=1e-5)
        self.qkv = nn.Linear(c, 3 * c, bias=False)
        self.proj = nn.Linear(c, c)
        self.norm2 = nn.LayerNorm(c, eps=1e-5)
        self.fc1 = nn.Linear(c, hidden)
        self.fc2 = nn.Linear(hidden, c)

    def forward(self, x: Tensor) -> Tensor:
        return window_attention(
            x,
            *(self.norm1.weight, self.norm1.bias, self.qkv.weight, self.proj.weight, self.proj.bias),
            *(self.norm2.weight, self.norm2.bias, self.fc1.weight, self.fc1.bias, self.fc2.weight, self.fc2.bias),
            heads=self.heads,
            window=self.window,
            fit=self.fit,
        )


class EdgeBlock(nn.Module):
    """One EMSR block: features, edge attention by the edges of the image that they make, and a transformer."""

    def __init__(self, config: EmsrConfig) -> None:
        super().__init__()
        c = config.features
        self.levels = config.levels
        self.body = nn.Sequential(*(ResidualBlock(c) for _ in range(4)))
        self.to_image = ToImage(c)
        self.from_edges = Conv3x3(2 * config.levels, c)
        self.coarse = nn.ModuleList(ResidualBlock(c) for _ in range(2))
        self.fine = nn.ModuleList(ResidualBlock(c) for _ in range(2))
        self.attention = nn.ModuleList(EdgeAttention(c) for _ in range(2))
        self.transformer = WindowTransformer(config)
        self.conv_out = Conv3x3(c, c)

    def forward(self, x: Tensor, image_edges: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return features (B, C, H, W) from ``x``, the same shape, and the input image's edges, (B, levels, H, W).

        ``residual``, of the shape of ``x``, is added at the end.
        """
        c = self.body(x)
        w = self.from_edges(concatenated(image_edges, atrous_details(self.to_image(c), self.levels)))
        for coarse, fine, attention in zip(self.coarse, self.fine, self.attention, strict=True):
            c, w = coarse(c), fine(w)
            c = attention(w, c)
        return self.conv_out(self.transformer(c), residual=residual)

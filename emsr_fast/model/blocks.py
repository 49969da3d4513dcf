"""The parts of the EMSR network, named as they work; every 3x3 convolution is zero-padded and has no bias."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emsr_fast.model.config import EmsrConfig
from emsr_fast.ops import atrous_details, window_attention


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    """Return a 3x3 convolution of stride 1, zero padding 1, no bias."""
    return nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)


class ResidualBlock(nn.Module):
    """conv2(relu(conv1(x))) + x, (B, C, H, W) to the same shape."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(features, features)
        self.conv2 = conv3x3(features, features)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu(self.conv1(x))) + x


class EdgeAttention(nn.Module):
    """k4(k3(w) * sigmoid(k2(leaky_relu(k1(w))))): what edge features w (B, C, H, W) say to amplify."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.k1 = conv3x3(features, features)
        self.k2 = nn.Conv2d(features, features, kernel_size=1)
        self.k3 = conv3x3(features, features)
        self.k4 = conv3x3(features, features)

    def forward(self, w: Tensor) -> Tensor:
        gate = torch.sigmoid(self.k2(F.leaky_relu(self.k1(w), 0.2)))
        return self.k4(self.k3(w) * gate)


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
    """One EMSR block: features that re-read the edges of the image they would make, and attend to them."""

    def __init__(self, config: EmsrConfig) -> None:
        super().__init__()
        c = config.features
        self.levels = config.levels
        self.body = nn.Sequential(*(ResidualBlock(c) for _ in range(4)))
        self.to_image = nn.Sequential(conv3x3(c, c), nn.ReLU(), conv3x3(c, 1))
        self.from_edges = conv3x3(2 * config.levels, c)
        self.coarse = nn.ModuleList(ResidualBlock(c) for _ in range(2))
        self.fine = nn.ModuleList(ResidualBlock(c) for _ in range(2))
        self.attention = nn.ModuleList(EdgeAttention(c) for _ in range(2))
        self.transformer = WindowTransformer(config)
        self.conv_out = conv3x3(c, c)

    def forward(self, x: Tensor, image_edges: Tensor) -> Tensor:
        """Return features (B, C, H, W) from ``x``, the same shape, and the input image's edges, (B, levels, H, W)."""
        c = self.body(x)
        w = self.from_edges(torch.cat([image_edges, atrous_details(self.to_image(c), self.levels)], dim=1))
        for coarse, fine, attention in zip(self.coarse, self.fine, self.attention, strict=True):
            c, w = coarse(c), fine(w)
            c = c + attention(w) * c
        return self.conv_out(self.transformer(c))

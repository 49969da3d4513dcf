"""Two networks that users would pick, small, to stand beside EMSR: EDSR and RCAN, written from their papers.

They take the place of an ``Emsr``: the same training loop, the same engine, one grey channel.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from emsr_fast.model import Emsr, EmsrConfig, ModelCard

FEATURES = 32


class Residual(nn.Module):
    """What ``body`` adds to its input."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class ChannelAttention(nn.Module):
    """Channels weighted by what they hold on average over the image."""

    def __init__(self, features: int, reduction: int = 8) -> None:
        super().__init__()
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(features, features // reduction, 1),
            nn.ReLU(),
            nn.Conv2d(features // reduction, features, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weigh(x)


def conv(inner: int, outer: int) -> nn.Conv2d:
    return nn.Conv2d(inner, outer, 3, padding=1)


class Baseline(Emsr):
    """Convolution, a body with a skip around it, pixel shuffle, convolution; (B, 1, H, W) to (B, 1, 3H, 3W)."""

    def __init__(self, name: str, *body: nn.Module, scale: int = 3) -> None:
        # what the loop and the engine ask of a network is its scale and its card; none of EMSR's modules
        nn.Module.__init__(self)
        self.config = EmsrConfig(scale=scale, features=FEATURES, heads=8)
        self.card = ModelCard.for_config(self.config, name=name)
        self.head = conv(1, FEATURES)
        self.body = Residual(*body, conv(FEATURES, FEATURES))
        self.tail = nn.Sequential(conv(FEATURES, scale**2 * FEATURES), nn.PixelShuffle(scale), conv(FEATURES, 1))

    def forward(self, y: Tensor) -> Tensor:
        # one image without batch and channel is taken too, as by Emsr
        if y.dim() == 2:
            return self(y[None, None])[0, 0]
        return self.tail(self.body(self.head(y)))


def edsr(blocks: int = 8) -> Baseline:
    """Return a small EDSR (Lim et al., CVPRW 2017): residual blocks without normalisation."""
    body = [Residual(conv(FEATURES, FEATURES), nn.ReLU(), conv(FEATURES, FEATURES)) for _ in range(blocks)]
    return Baseline("edsr", *body)


def rcan(groups: int = 2, blocks: int = 4) -> Baseline:
    """Return a small RCAN (Zhang et al., ECCV 2018): groups of residual blocks with channel attention."""

    def block() -> Residual:
        inner = (conv(FEATURES, FEATURES), nn.ReLU(), conv(FEATURES, FEATURES))
        return Residual(*inner, ChannelAttention(FEATURES))

    body = [Residual(*(block() for _ in range(blocks)), conv(FEATURES, FEATURES)) for _ in range(groups)]
    return Baseline("rcan", *body)


BASELINES = {"edsr": edsr, "rcan": rcan}


def load_baseline(path: Path) -> Baseline:
    """Return the network in ``path``, a file of the training loop whose folder is named after it."""
    network = BASELINES[path.parent.name]()
    network.load_state_dict(load_file(path))
    return network.eval()


def parameters(network: nn.Module) -> int:
    """Return the number of trained numbers."""
    return sum(one.numel() for one in network.parameters() if isinstance(one, torch.Tensor))

"""Small networks that users would pick, to stand beside EMSR: EDSR and RCAN from their papers, transformers' Swin2SR.

They take the place of an ``Emsr``: the same training loop, the same engine, one grey channel.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from emsr_fast.model import Emsr, EmsrConfig, ModelCard

FEATURES = 32
SCALE = 3


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
    """A network (B, 1, H, W) to (B, 1, 3H, 3W) with what the loop and the engine ask of an ``Emsr``: scale and card."""

    def __init__(self, name: str, body: nn.Module, scale: int = SCALE) -> None:
        nn.Module.__init__(self)  # and none of EMSR's modules
        self.config = EmsrConfig(scale=scale, features=FEATURES, heads=8)
        self.card = ModelCard.for_config(self.config, name=name)
        self.body = body

    def forward(self, y: Tensor) -> Tensor:
        # one image without batch and channel is taken too, as by Emsr
        if y.dim() == 2:
            return self(y[None, None])[0, 0]
        image: Tensor = self.body(y)
        return image


def convolutional(name: str, *blocks: nn.Module) -> Baseline:
    """Return a convolution, blocks with a skip around them, pixel shuffle and a convolution."""
    head, body = conv(1, FEATURES), Residual(*blocks, conv(FEATURES, FEATURES))
    tail = (conv(FEATURES, SCALE**2 * FEATURES), nn.PixelShuffle(SCALE), conv(FEATURES, 1))
    return Baseline(name, nn.Sequential(head, body, *tail))


def edsr(blocks: int = 8) -> Baseline:
    """Return a small EDSR (Lim et al., CVPRW 2017): residual blocks without normalisation."""
    body = [Residual(conv(FEATURES, FEATURES), nn.ReLU(), conv(FEATURES, FEATURES)) for _ in range(blocks)]
    return convolutional("edsr", *body)


def rcan(groups: int = 2, blocks: int = 4) -> Baseline:
    """Return a small RCAN (Zhang et al., ECCV 2018): groups of residual blocks with channel attention."""

    def block() -> Residual:
        inner = (conv(FEATURES, FEATURES), nn.ReLU(), conv(FEATURES, FEATURES))
        return Residual(*inner, ChannelAttention(FEATURES))

    body = [Residual(*(block() for _ in range(blocks)), conv(FEATURES, FEATURES)) for _ in range(groups)]
    return convolutional("rcan", *body)


class InWindows(nn.Module):
    """A network of transformers, which takes whole windows only (5.23 does), for images of any size."""

    def __init__(self, network: nn.Module, window: int) -> None:
        super().__init__()
        self.network, self.window = network, window

    def forward(self, y: Tensor) -> Tensor:
        height, width = y.shape[-2:]
        padded = nn.functional.pad(y, (0, -width % self.window, 0, -height % self.window), mode="replicate")
        image: Tensor = self.network(pixel_values=padded).reconstruction
        return image[..., : SCALE * height, : SCALE * width]


def swin2sr(features: int = 64) -> Baseline:
    """Return a small Swin2SR (Conde et al., ECCVW 2022) for one step of upsampling: `pip install transformers`."""
    from transformers import Swin2SRConfig, Swin2SRForImageSuperResolution

    window = 8
    shape = {"embed_dim": features, "depths": [2, 2], "num_heads": [4, 4], "window_size": window, "mlp_ratio": 2.0}
    kind = {"num_channels": 1, "upscale": SCALE, "upsampler": "pixelshuffledirect"}
    network = Swin2SRForImageSuperResolution(Swin2SRConfig(**shape, **kind))
    return Baseline("swin2sr", InWindows(network, window))


BASELINES = {"edsr": edsr, "rcan": rcan, "swin2sr": swin2sr}


def load_baseline(path: Path) -> Baseline:
    """Return the network in ``path``, a file of the training loop whose folder is named after it."""
    network = BASELINES[path.parent.name]()
    network.load_state_dict(load_file(path))
    return network.eval()


def parameters(network: nn.Module) -> int:
    """Return the number of trained numbers."""
    return sum(one.numel() for one in network.parameters() if isinstance(one, torch.Tensor))

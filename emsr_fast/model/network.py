"""The EMSR network, wired as in the paper."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from emsr_fast.forking import one_thread_after_fork
from emsr_fast.model.blocks import Conv3x3, EdgeBlock
from emsr_fast.model.card import ModelCard
from emsr_fast.model.config import EmsrConfig
from emsr_fast.ops import atrous_details, upsample_to_image


class Emsr(nn.Module):
    """From a grey image to the super-resolved one: (B, 1, H, W) to (B, 1, scale * H, scale * W).

    Any H, W >= 1 with ``window_fit="pad"``, >= 4 with "resize". Intensities are normalised, usually to [0, 1]; the
    output is linear and not clipped. Equivariant to shifts by multiples of the window, 4 LR px.

    Our kernels take float32 on a CPU, float16 and bfloat16 on a CUDA device:
    ``Emsr().cuda().half().to(memory_format=torch.channels_last)``; float32 is PyTorch's there. As CUDA graphs:
    ``model.cuda_graphs.GraphedNetwork``.

    Source: arXiv 2401.08115.
    """

    def __init__(self, config: EmsrConfig | None = None, card: ModelCard | None = None) -> None:
        super().__init__()
        one_thread_after_fork()
        self.config = config = config or EmsrConfig()
        self.card = card or ModelCard.for_config(config)
        c = config.features
        self.conv_in = Conv3x3(1, c)
        self.blocks = nn.ModuleList(EdgeBlock(config) for _ in range(config.blocks))
        factors = (2, 2) if config.scale == 4 else (config.scale,)
        self.upsample = nn.Sequential(*(Upsample(c, factor) for factor in factors))
        self.conv_out = Conv3x3(c, 1)

    def forward(self, y: Tensor) -> Tensor:
        if y.dim() == 2:
            return self(y[None, None])[0, 0]
        if y.dim() != 4 or y.shape[1] != 1:
            raise ValueError(f"y must be one image (H, W) or a batch (B, 1, H, W), got shape {tuple(y.shape)}")
        edges = atrous_details(y, self.config.levels)
        x = shallow = self.conv_in(y)
        for block in self.blocks[:-1]:
            x = block(x, edges)
        x = self.blocks[-1](x, edges, residual=shallow)
        step = self.upsample[0]
        if len(self.upsample) == 1 and isinstance(step, Upsample):
            return upsample_to_image(x, step.conv.weight, self.conv_out.weight, step.factor)
        return self.conv_out(self.upsample(x))


class Upsample(nn.Module):
    """Convolution and pixel shuffle, (B, C, H, W) to (B, C, factor * H, factor * W)."""

    def __init__(self, features: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.conv = Conv3x3(features, factor * factor * features)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x), self.factor)

"""From features to the super-resolved image, in plain PyTorch: the definition."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def upsample_to_image(x: Tensor, up_weight: Tensor, out_weight: Tensor, scale: int) -> Tensor:
    """Return conv(pixel_shuffle(conv(x, up_weight), scale), out_weight); 3x3, zero padding 1 each."""
    return F.conv2d(F.pixel_shuffle(F.conv2d(x, up_weight, padding=1), scale), out_weight, padding=1)

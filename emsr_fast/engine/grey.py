"""Converts grey values of 8 bits on the network's device, with the same bits as ``io.intensity``.

It is plain PyTorch in float64. On a GPU it moves about a kilobyte and takes 50 operations per LR pixel at scale 3, some
2 % of a network of 64 features.
"""

from __future__ import annotations

import torch
from torch import Tensor


def to_model(tiles: Tensor, table: Tensor) -> Tensor:
    """Return ``tiles`` (B, 1, H, W) uint8 in the model's range: the values of ``table`` (256,) float32."""
    return table[tiles.long()]


def from_model(
    image: Tensor, low: float, high: float, part: tuple[slice, slice] | None = None
) -> tuple[Tensor, Tensor]:
    """Return pixels of ``image`` (B, 1, H, W), any float dtype, as grey values, uint8, and two counts, int64.

    Args:
        image: 0 and 1 become ``low`` and ``high``; clipped to 0 .. 255, then rounded half to even.
        part: rows and columns that are wanted; all if None.

    The counts are the clipped pixels of the part, and the pixels of the whole image that are not finite. If there are
    any of the latter, the grey values are of no use. Nothing here waits for the device.
    """
    wanted = image if part is None else image[(..., *part)]
    # one rounding each, and never a fused multiply-add: two steps
    values = (wanted.double() * (high - low)).add_(low).round_()
    limited = values.clamp(0, 255)
    counts = torch.stack([(limited != values).sum(), image.isfinite().logical_not_().sum()])
    # what NaN becomes as an integer is nobody's choice
    return limited.nan_to_num_(0).to(torch.uint8), counts

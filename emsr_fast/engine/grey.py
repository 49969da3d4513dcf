"""Grey values of 8 bits to and from the network, where it computes: to the bit what ``volume.intensity`` makes of them.

Plain PyTorch in float64, as there; on a GPU about a kilobyte and 50 operations per LR pixel at scale 3, some 2 % of a
network of 64 features.
"""

from __future__ import annotations

import torch
from torch import Tensor


def to_model(tiles: Tensor, table: Tensor) -> Tensor:
    """Return what the network sees of ``tiles`` (B, 1, H, W) uint8: the values of ``table`` (256,) float32."""
    return table[tiles.long()]


def from_model(
    image: Tensor, low: float, high: float, part: tuple[slice, slice] | None = None
) -> tuple[Tensor, Tensor]:
    """Return pixels of ``image`` (B, 1, H, W), any float dtype, as grey values, uint8, and two counts, int64.

    Args:
        image: 0 and 1 become ``low`` and ``high``; clipped to 0 .. 255, then rounded half to even.
        part: rows and columns that are wanted; all if None.

    The counts: pixels of the part that were clipped, pixels of the whole image that are not finite. Where there are
    any of the latter, the grey values say nothing. Nothing here waits for the device.
    """
    wanted = image if part is None else image[(..., *part)]
    # one rounding each, and never a fused multiply-add: two steps
    values = (wanted.double() * (high - low)).add_(low).round_()
    limited = values.clamp(0, 255)
    counts = torch.stack([(limited != values).sum(), image.isfinite().logical_not_().sum()])
    # what NaN becomes as an integer is nobody's choice
    return limited.nan_to_num_(0).to(torch.uint8), counts

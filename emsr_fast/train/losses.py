"""The loss of training without clean references (arXiv 2401.08115)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from emsr_fast.ops import atrous_details
from emsr_fast.train.config import Loss

_CHARBONNIER = 1e-3  # where |error| turns from square to line, intensities in [0, 1]


def distance(kind: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the mean distance of two images: "l1" for the median, "l2" for the mean, "charbonnier" a smooth l1."""
    if kind == "l1":
        return lambda a, b: (a - b).abs().mean()
    if kind == "l2":
        return lambda a, b: (a - b).square().mean()
    return lambda a, b: ((a - b).square() + _CHARBONNIER**2).sqrt().mean()


def reference_free_loss(
    network: Callable[[Tensor], Tensor], y: Tensor, x: Tensor, noise: Tensor, settings: Loss, levels: int = 3
) -> Tensor:
    """Return the weighted sum of L(f(y), x), L(f(y'), x) and L(f(y), f(y')) with y' = y + noise.

    Args:
        network: f, (B, 1, H, W) to (B, 1, scale * H, scale * W).
        y: LR batch; x: its noisy HR reference, not clipped; noise: as ``y``, zero mean.
        levels: à-trous levels of the optional edge term.
    """
    measure = distance(settings.kind)
    first, second, third = settings.weights
    if second or third:
        # one pass over both halves, stacked along the batch: nothing leaks from y' to y
        plain, noisier = network(torch.cat([y, y + noise])).float().chunk(2)
    else:
        plain = noisier = network(y).float()
    loss = first * measure(plain, x)
    if second:
        loss = loss + second * measure(noisier, x)
    if third:
        loss = loss + third * measure(noisier, plain.detach() if settings.stop_gradient else plain)
    if settings.edges:
        loss = loss + settings.edges * measure(atrous_details(plain, levels), atrous_details(x, levels))
    return loss

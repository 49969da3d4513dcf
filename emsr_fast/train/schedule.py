"""Optimiser and learning rate from the settings."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from emsr_fast.train.config import Optimiser


def optimiser_of(parameters: Iterable[nn.Parameter], settings: Optimiser) -> torch.optim.Optimizer:
    """Return the optimiser that ``settings`` name."""
    kind = torch.optim.AdamW if settings.kind == "adamw" else torch.optim.Adam
    parameters = list(parameters)
    # one pass over the values instead of a dozen
    fused = all(p.is_cpu and p.dtype == torch.float32 for p in parameters)
    return kind(parameters, lr=settings.rate, weight_decay=settings.weight_decay, fused=fused or None)


def rate_factor(settings: Optimiser, done: float, step: int) -> float:
    """Return the learning rate of ``step`` as a share of ``settings.rate``.

    Args:
        done: how much of the run is over, 0 to 1; by steps, or by time where the run is limited by time.
    """
    if step < settings.warm_up:
        return (step + 1) / settings.warm_up
    if settings.schedule == "halving":
        return 0.5 ** (step // settings.halve_every)
    if settings.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    return 1.0

"""Crops for training: each depends only on the seed and its number, not on workers, processes or restarts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from emsr_fast.errors import VolumeError
from emsr_fast.train.config import GREY, TrainConfig
from emsr_fast.train.degrade import degrade
from emsr_fast.train.hold_back import Pair
from emsr_fast.trust.turns import TURNS, turned

Crop = tuple[Tensor, Tensor, Tensor]  # y (1, h, w), x (1, scale * h, scale * w), normal noise (1, h, w)


class Crops(Dataset[Crop]):
    """An endless series of random crops, number i being the same in every run with the same seed."""

    def __init__(self, groups: Sequence[tuple[float, Sequence[Pair]]], config: TrainConfig, scale: int) -> None:
        """Draw from ``groups`` of pairs by their weights, and inside a group by area."""
        self._pairs = [pair for _, group in groups for pair in group]
        areas = [[(p.rows[1] - p.rows[0]) * p.reference.shape[2] for p in group] for _, group in groups]
        shares = [
            weight * area / sum(group) for (weight, _), group in zip(groups, areas, strict=True) for area in group
        ]
        self._shares = np.array(shares) / sum(shares)
        self._config, self._scale = config, scale

    def __getitem__(self, number: int) -> Crop:
        rng = np.random.default_rng([self._config.seed, number])
        pair = self._pairs[rng.choice(len(self._pairs), p=self._shares)]
        y, x = crop_of(pair, self._config.crop, self._scale, rng)
        turn = int(rng.integers(len(TURNS)))
        y, x = turned(y, turn), turned(x, turn)
        y = y + rng.uniform(*self._config.extra_lr_sigma) * GREY * rng.standard_normal(y.shape)
        if self._config.contrast:
            gain, offset = 1 + self._config.contrast * rng.uniform(-1, 1), self._config.contrast * rng.uniform(-1, 1)
            y, x = gain * (y - 0.5) + 0.5 + offset, gain * (x - 0.5) + 0.5 + offset
        return as_tensor(y), as_tensor(x), as_tensor(rng.standard_normal(y.shape))


def readable(loader: DataLoader[Crop]) -> Iterator[list[Tensor]]:
    """Yield the batches of ``loader``; raise an error of a worker process with its one line, without the traceback."""
    try:
        yield from loader
    except VolumeError as error:
        raise VolumeError(str(error).strip().splitlines()[-1].partition("VolumeError: ")[2] or str(error)) from error


class Numbers(Sampler[list[int]]):
    """This process's share of the crop numbers of each step."""

    def __init__(self, first_step: int, steps: int, batch: int, rank: int = 0, processes: int = 1) -> None:
        self._steps = range(first_step, steps)
        self._batch, self._share, self._rank = batch, batch // processes, rank

    def __iter__(self) -> Iterator[list[int]]:
        for step in self._steps:
            first = step * self._batch + self._rank * self._share
            yield list(range(first, first + self._share))

    def __len__(self) -> int:
        return len(self._steps)


def crop_of(pair: Pair, side: int, scale: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a random LR crop, (side, side), and its reference, (scale * side, scale * side), normalised."""
    first, last = pair.rows
    width = pair.reference.shape[2]
    if pair.degradation is not None:
        top = int(rng.integers(first, last - scale * side + 1))
        left = int(rng.integers(0, width - scale * side + 1))
        rows, cols = slice(top, top + scale * side), slice(left, left + scale * side)
        y = degrade(pair.origin.crop(pair.z, rows, cols), scale, pair.degradation, rng)
    else:
        # whole LR pixels, so that both crops show the same field
        top = int(rng.integers(math.ceil(first / scale), last // scale - side + 1))
        left = int(rng.integers(0, width // scale - side + 1))
        y = pair.origin.crop(pair.z, slice(top, top + side), slice(left, left + side))
        rows = slice(scale * top, scale * (top + side))
        cols = slice(scale * left, scale * (left + side))
    return y, pair.reference.crop(pair.reference_z, rows, cols)


def as_tensor(image: np.ndarray) -> Tensor:
    """Return ``image`` (h, w) as (1, h, w) float32."""
    return torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None]

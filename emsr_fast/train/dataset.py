"""Crops for training: each depends only on the seed and its number, not on workers, processes or restarts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from emsr_fast.errors import VolumeError
from emsr_fast.io.resample import coarser
from emsr_fast.train.config import GREY, TrainConfig
from emsr_fast.train.degrade import degrade
from emsr_fast.train.hold_back import Pair
from emsr_fast.trust.turns import TURNS, turned

Greys = Callable[[np.ndarray], np.ndarray]
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
        y, x = crop_of(pair, self._config.crop, self._scale, rng, _greys(self._config, rng))
        turn = int(rng.integers(len(TURNS)))
        y, x = turned(y, turn), turned(x, turn)
        y = y + rng.uniform(*self._config.extra_lr_sigma) * GREY * rng.standard_normal(y.shape)
        if self._config.contrast:
            gain, offset = 1 + self._config.contrast * rng.uniform(-1, 1), self._config.contrast * rng.uniform(-1, 1)
            y, x = gain * (y - 0.5) + 0.5 + offset, gain * (x - 0.5) + 0.5 + offset
        return as_tensor(y), as_tensor(x), as_tensor(rng.standard_normal(y.shape))


def readable(loader: DataLoader[Crop]) -> Iterator[list[Tensor]]:
    """Yield the batches of ``loader``; raise an error of a worker process with its one line, without the traceback.

    Without worker processes a thread prepares the next batch while this one is in use.
    """
    batches = iter(loader)
    try:
        if loader.num_workers:
            yield from batches
            return
        with ThreadPoolExecutor(1, "crops") as beside:
            coming = beside.submit(next, batches, None)
            while (batch := coming.result()) is not None:
                coming = beside.submit(next, batches, None)
                yield batch
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


def _greys(config: TrainConfig, rng: np.random.Generator) -> Greys:
    """Return a random change of grey values, by the settings ``gamma``, ``inversion`` and ``plain``."""
    gamma = _factor(config.gamma, rng)
    # as before these settings existed: nothing is drawn where nothing is asked for
    inverted = bool(config.inversion) and rng.random() < config.inversion
    level = rng.random() if config.plain and rng.random() < config.plain else None

    def change(image: np.ndarray) -> np.ndarray:
        if level is not None:
            return np.full_like(image, level)
        if gamma != 1:
            image = np.sign(image) * np.abs(image) ** np.float32(gamma)
        return 1 - image if inverted else image

    return change


def _factor(ends: tuple[float, float], rng: np.random.Generator) -> float:
    """Return a factor between ``ends``, its logarithm drawn uniformly; nothing is drawn if there is no choice."""
    low, high = ends
    return low if low == high else float(np.exp(rng.uniform(math.log(low), math.log(high))))


def crop_of(
    pair: Pair, side: int, scale: int, rng: np.random.Generator, greys: Greys = lambda image: image
) -> tuple[np.ndarray, np.ndarray]:
    """Return a random LR crop, (side, side), and its reference, (scale * side, scale * side), normalised.

    Args:
        greys: changes the grey values of both; before LR is made from HR, so that new noise is as it was asked for.
    """
    first, last = pair.rows
    width = pair.reference.shape[2]
    if pair.degradation is not None:
        factor, large = _factor(pair.degradation.hr_reduction, rng), scale * side
        window = math.ceil(factor * large)
        top = int(rng.integers(first, last - window + 1))
        left = int(rng.integers(0, width - window + 1))
        rows, cols = slice(top, top + window), slice(left, left + window)
        # grey values last: a detector's curve acts on what a pixel has collected
        origin, x = (
            greys(coarser(volume.crop(z, rows, cols), factor, (large, large)))
            for volume, z in ((pair.origin, pair.z), (pair.reference, pair.reference_z))
        )
        return degrade(origin, scale, pair.degradation, rng), x
    # whole LR pixels, so that both crops show the same field
    top = int(rng.integers(math.ceil(first / scale), last // scale - side + 1))
    left = int(rng.integers(0, width // scale - side + 1))
    y = pair.origin.crop(pair.z, slice(top, top + side), slice(left, left + side))
    rows = slice(scale * top, scale * (top + side))
    cols = slice(scale * left, scale * (left + side))
    return greys(y), greys(pair.reference.crop(pair.reference_z, rows, cols))


def as_tensor(image: np.ndarray) -> Tensor:
    """Return ``image`` (h, w) as (1, h, w) float32."""
    return torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None]

"""The interface of engines, the same for every runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from emsr_fast.convert.shapes import Shapes


class Engine(Protocol):
    """Runs a super-resolution network on batches of tiles of equal size."""

    name: str  # for messages and metadata, "torch (cpu, float32)"
    scale: int  # HR pixels per LR pixel and axis
    precision: str  # what convolutions compute in: "fp32", "fp16" or "bf16"
    device: str  # "cpu", "cuda:0"

    @property
    def shapes(self) -> Shapes | None:
        """The shapes of batches that it takes; None for any."""
        ...

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Return the HR tiles, (B, 1, scale * H, scale * W) float32, of ``batch``, (B, 1, H, W) float32.

        Intensities are in the model's range, usually [0, 1]; the result is not clipped. The network takes a tile for a
        whole image and pads it itself, so a tile is never padded before.
        """
        ...


@dataclass(frozen=True, eq=False)
class Grey:
    """Grey values of 8 bits for an engine that converts them itself, in and out: a quarter of the bytes each way."""

    table: np.ndarray  # (256,) float32: what the network sees of each value
    low: float  # the grey value of the network's 0
    high: float  # and of its 1


@dataclass(frozen=True)
class GreyTiles:
    """Tiles as grey values of 8 bits."""

    pixels: np.ndarray  # (B, 1, rows, columns) uint8: clipped, then rounded half to even
    clipped: int  # of these pixels
    not_finite: int  # of all pixels that the network made; if there are any, ``pixels`` say nothing


@runtime_checkable
class StreamingEngine(Engine, Protocol):
    """An engine that copies batches while it computes others. Batches are submitted, and later collected in order."""

    depth: int  # batches worth having under way
    converts: bool  # whether it takes grey values

    def submit(self, batch: np.ndarray, grey: Grey | None = None, part: tuple[slice, slice] | None = None) -> Any:
        """Start on ``batch``; return a ticket for ``collect``.

        Args:
            batch: as of ``run``; with ``grey``, uint8.
            grey: converts the batch, and the result.
            part: the rows and columns of HR pixels that are wanted as grey values; all if None.
        """
        ...

    def collect(self, ticket: Any) -> np.ndarray | GreyTiles:
        """Wait for a submitted batch; return the result of ``run``, or its grey values."""
        ...

"""What prediction asks of an engine, whoever runs the network behind it."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from emsr_fast.export.shapes import Shapes


class Engine(Protocol):
    """Runs a super-resolution network on batches of tiles of equal size."""

    name: str  # for messages and metadata, "torch (cpu, float32)"
    scale: int  # HR pixels per LR pixel and axis
    precision: str  # what convolutions compute in: "fp32", "fp16" or "bf16"
    device: str  # "cpu", "cuda:0"

    @property
    def shapes(self) -> Shapes | None:
        """The batches it takes; None: any."""
        ...

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Return the HR tiles, (B, 1, scale * H, scale * W) float32, of ``batch``, (B, 1, H, W) float32.

        Intensities are normalised: the model's own range, usually [0, 1]; the result is not clipped. Every pixel
        outside a tile is zero to the network, so a tile is never padded: what is given is the image.
        """
        ...

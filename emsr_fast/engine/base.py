"""What prediction asks of an engine, whoever runs the network behind it."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Engine(Protocol):
    """Runs a super-resolution network on batches of tiles of equal size."""

    name: str  # for messages and metadata, "torch (cpu, float32)"
    scale: int  # HR pixels per LR pixel and axis

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Return the HR tiles, (B, 1, scale * H, scale * W) float32, of ``batch``, (B, 1, H, W) float32.

        Intensities are normalised: the model's own range, usually [0, 1]; the result is not clipped.
        """
        ...

"""Figures of a run over blocks."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Statistics:
    """What a run over blocks did."""

    blocks: int = 0
    lr_pixels: int = 0  # of the input, each counted once; not those that an earlier run had done
    bounded: int = 0  # of the blocks, how many LR pixels were beyond what the network is given
    padding: int = 0  # of lr_pixels, those that are padding and stay 0
    clipped: int = 0  # HR pixels outside the range of an integer dtype
    network_s: float = 0.0  # inside the engine, or waiting for it
    seconds: float = 0.0  # of the streams, those of several workers added up
    failed: dict[int, str] = field(default_factory=dict)  # slice of the input: why it could not be done

    def add(self, other: Statistics) -> None:
        """Add the figures of another worker."""
        self.blocks += other.blocks
        self.lr_pixels += other.lr_pixels
        self.bounded += other.bounded
        self.padding += other.padding
        self.clipped += other.clipped
        self.network_s += other.network_s
        self.seconds += other.seconds
        self.failed |= other.failed

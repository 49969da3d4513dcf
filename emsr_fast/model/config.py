"""The architecture of an EMSR network as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from emsr_fast.errors import UsageError

# the least and the most that a network is given of intensities in [0, 1]. It multiplies features with each other: from
# about ten times the range on, these products grow without limit, and one hot pixel ruins thousands around it. With
# these bounds it changes 36 HR pixels. Ordinary images stay well inside
INPUT_BOUNDS = (-1.0, 2.0)

# far beyond any network that makes sense, so that a damaged file cannot ask for all the memory there is
_LIMITS = {"scale": 4, "features": 4096, "blocks": 64, "levels": 8, "heads": 1024, "window": 64, "mlp_ratio": 16}


@dataclass(frozen=True)
class EmsrConfig:
    """Architecture of an EMSR network; the defaults are the paper's.

    Raises:
        ValueError: a value is out of range, or ``heads`` does not divide ``features``.
    """

    scale: int = 3  # HR pixels per LR pixel and axis: 2, 3 or 4
    features: int = 64  # channels between the convolutions
    blocks: int = 3
    levels: int = 3  # à-trous wavelet levels
    heads: int = 16  # attention heads; released networks have dimension 4 each
    window: int = 4  # side of an attention window, px
    mlp_ratio: int = 2  # hidden units of the transformer's MLP, per feature
    window_fit: Literal["pad", "resize"] = "pad"  # sizes that are no multiple of a window; "resize" as published

    def __post_init__(self) -> None:
        for name, most in _LIMITS.items():
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= most:
                raise ValueError(f"{name} must be a whole number from 1 to {most}, got {value!r}")
        if self.scale not in (2, 3, 4):
            raise ValueError(f"scale must be 2, 3 or 4, got {self.scale}")
        if self.features % self.heads:
            raise ValueError(f"heads must divide features, got {self.heads} heads for {self.features} features")
        if self.window_fit not in ("pad", "resize"):
            raise ValueError(f"window_fit must be 'pad' or 'resize', got {self.window_fit!r}")


def check_window_fit(window_fit: str | None) -> None:
    """Raise UsageError unless ``window_fit`` is "pad", "resize", or None for the model's own."""
    if window_fit not in (None, "pad", "resize"):
        raise UsageError(f"`window_fit` is {window_fit!r}; give pad or resize, or leave it out for the model's own")

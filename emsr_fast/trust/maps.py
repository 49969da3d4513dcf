"""Maps of trust, measured without a reference: nine runs of the network on the same tile.

They answer two questions. Do the runs agree? Flips and turns of the input, and added noise as large as its own, should
not change the structures. And does the result, reduced again, equal the measured input? An error that all runs share,
and that averages out over an LR pixel, is not seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from emsr_fast.trust.calibration import Calibration
from emsr_fast.trust.noise_field import noise_at
from emsr_fast.trust.turns import TURNS, turned, turned_back

MAPS = {
    "error": "expected error, root mean square, grey values of the output",
    "disagreement": "standard deviation of nine runs (eight flips and turns, one with more noise), grey values",
    "residual": "result made coarse again minus input, in standard deviations of the input's noise; input's pixels",
}
RESIDUAL = "residual"  # the one map with the input's voxels
RUNS = len(TURNS) + 1  # of the network, instead of one
ALIGNMENT = 4  # px: flipped tiles need the windows of the flipped slice, which are counted from its end
_REACH = 1  # LR px on each side over which squares are averaged: single pixels of nine runs say little
_LEAST_SIGMA = 1e-4  # of the model's range: less noise than this no detector has


@dataclass(frozen=True)
class Trust:
    """Noise and calibration, on which the maps depend; intensities are in the model's [0, 1]."""

    gain: float  # the input's noise has variance gain * intensity + offset
    offset: float
    calibration: Calibration | None  # without it there is no map of the expected error

    @property
    def names(self) -> tuple[str, ...]:
        """The maps that are made."""
        return tuple(name for name in MAPS if name != "error" or self.calibration is not None)

    def sigma(self, image: np.ndarray) -> np.ndarray:
        """Return the standard deviation of the noise of each pixel of ``image``."""
        variance = self.gain * np.clip(image, 0, None) + self.offset
        return np.sqrt(np.maximum(variance, _LEAST_SIGMA**2)).astype(np.float32)

    def maps(
        self,
        run: Callable[[np.ndarray], np.ndarray],
        image: np.ndarray,
        result: np.ndarray,
        own: tuple[slice, slice],
        place: tuple[int, int, int],
        scale: int,
    ) -> dict[str, np.ndarray]:
        """Return ``names`` for part of a tile: (scale * h, scale * w), the residual (h, w), float32.

        Args:
            run: the network, (H, W) to (scale * H, scale * W).
            image: (H, W) float32, the pixels that the tile reads, up to ``aligned_stop`` of the slice.
            result: (scale * h', scale * w'), the network's result for its first (h', w') pixels.
            own: rows and columns of ``image`` that are wanted.
            place: slice, row and column of the corner of ``image`` in the input.
            scale: HR pixels per LR pixel and axis.
        """
        near = tuple(
            slice(max(part.start - 2 * _REACH, 0), min(part.stop + 2 * _REACH, side // scale))
            for part, side in zip(own, result.shape, strict=True)
        )
        large = tuple(slice(part.start * scale, part.stop * scale) for part in near)
        squares = self._variance(run, image, result[large], large, place)
        low = image[near]
        coarse = _coarse(result[large], scale)
        difference = coarse - low
        inner = tuple(slice(o.start - n.start, o.stop - n.start) for o, n in zip(own, near, strict=True))
        inner_large = tuple(slice(part.start * scale, part.stop * scale) for part in inner)
        disagreement = np.sqrt(box_mean(squares, _REACH * scale + scale // 2))[inner_large]
        found = {"disagreement": disagreement, "residual": (difference / self.sigma(low))[inner]}
        if self.calibration is not None:
            residual = np.sqrt(box_mean(difference**2, _REACH))[inner].repeat(scale, 0).repeat(scale, 1)
            found["error"] = self.calibration.error(disagreement, residual).astype(np.float32)
        return {name: found[name] for name in self.names}

    def _variance(
        self,
        run: Callable[[np.ndarray], np.ndarray],
        image: np.ndarray,
        result: np.ndarray,
        where: tuple[slice, ...],
        place: tuple[int, int, int],
    ) -> np.ndarray:
        """Return the variance of each pixel over the nine results, including ``result``."""
        # differences from one of them: exactly 0 where all agree, and small enough for float32 elsewhere
        total, squares = np.zeros_like(result), np.zeros_like(result)
        for difference in (other[where] - result for other in self._others(run, image, place)):
            total += difference
            squares += difference * difference
        variance: np.ndarray = np.maximum(squares - total * total / np.float32(RUNS), 0) / np.float32(RUNS - 1)
        return variance

    def _others(self, run: Callable[[np.ndarray], np.ndarray], image: np.ndarray, place: tuple[int, int, int]) -> Any:
        for turn in TURNS:
            if turn:
                yield turned_back(run(np.ascontiguousarray(turned(image, turn))), turn)
        z, top, left = place
        rows, cols = slice(top, top + image.shape[0]), slice(left, left + image.shape[1])
        yield run(image + self.sigma(image) * noise_at(z, rows, cols, draw=0))

    def as_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Trust:
        """Return what ``as_json`` described."""
        calibration = values["calibration"]
        return cls(values["gain"], values["offset"], None if calibration is None else Calibration(**calibration))


def rounded(values: np.ndarray) -> np.ndarray:
    """Return float32 ``values`` rounded to 8 significant bits (0.2 %): no estimate is better, and this compresses."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    kept: np.ndarray = ((bits + np.uint32(0x8000)) & np.uint32(0xFFFF0000)).view(np.float32)
    return kept


def aligned_stop(stop: int, side: int) -> int:
    """Return the first pixel from ``stop`` on, at most ``side``, that is a multiple of 4 px before the end ``side``."""
    return side - (side - stop) // ALIGNMENT * ALIGNMENT


def box_mean(values: np.ndarray, reach: int) -> np.ndarray:
    """Return, for every pixel of (H, W), the mean of the pixels up to ``reach`` away that are in the image."""
    for axis in (0, 1):
        around = [(reach, reach) if number == axis else (0, 0) for number in (0, 1)]
        side, padded = values.shape[axis], np.pad(values, around)
        shifted = (padded[_along(axis, slice(at, at + side))] for at in range(2 * reach + 1))
        places = np.arange(side)
        count = np.minimum(places + reach + 1, side) - np.maximum(places - reach, 0)
        # pixel by pixel in one order: the same wherever a tile begins
        per_place = count.astype(values.dtype).reshape((-1, 1) if axis == 0 else (1, -1))
        values = sum(shifted, np.zeros_like(values)) / per_place
    return values


def _along(axis: int, span: slice) -> tuple[slice, ...]:
    return (span, slice(None)) if axis == 0 else (slice(None), span)


def _coarse(image: np.ndarray, scale: int) -> np.ndarray:
    """Return the mean of each square of ``scale`` x ``scale`` pixels, as training makes LR from HR."""
    height, width = (side // scale for side in image.shape)
    coarse: np.ndarray = image.reshape(height, scale, width, scale).mean(axis=(1, 3), dtype=np.float32)
    return coarse

"""How far the pixels of another runtime may be from those of PyTorch in float32."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from emsr_fast import _backends
from emsr_fast.convert.graph import Graph
from emsr_fast.model.network import Emsr

_SIDE = 96  # px of the tiles that rounding is measured on; in float64, more would take minutes
_PIXELS_OF_A_MEAN = 4096
# rounding errors are proportional to the unit roundoff: 2**-11 for fp16, 2**-8 for bf16
_OF_BF16 = {"fp16": 1 / 8, "bf16": 1.0}


@dataclass(frozen=True)
class Tolerance:
    """The allowed difference of a runtime's pixels from PyTorch's in float32, in the model's intensities."""

    largest: float
    mean: float

    def why_not(self, error: np.ndarray) -> str | None:
        """Return in words that the absolute differences ``error`` are larger than rounding explains, or None."""
        worst, mean = float(error.max()), float(error.mean())
        # written so that NaN fails; the mean of a few pixels says nothing
        if worst <= self.largest and (mean <= self.mean or error.size < _PIXELS_OF_A_MEAN):
            return None
        return (
            f"largest difference {worst:.2e}, mean {mean:.2e}, "
            f"where rounding explains {self.largest:.2e} and {self.mean:.2e}"
        )


def real_tiles(rows: int, cols: int) -> np.ndarray:
    """Return two tiles of electron microscopy, (2, 1, rows, cols) float32 in [0, 1]; large ones are mirrored."""
    import tifffile

    stack = tifffile.imread(Path(__file__).parent / "fibsem_2x192x192.tif")
    missing = (max(0, rows - stack.shape[1]), max(0, cols - stack.shape[2]))
    stack = np.pad(stack, ((0, 0), (0, missing[0]), (0, missing[1])), mode="reflect")[:, :rows, :cols]
    return np.ascontiguousarray(stack[:, None]).astype(np.float32) / 255


@torch.inference_mode()
def in_pytorch(model: Emsr, batch: np.ndarray) -> np.ndarray:
    """Return the HR tiles of ``batch``, float32, by the definition of every operator, on the CPU: no TF32 there."""
    plain = copy.deepcopy(model).cpu().float().eval()
    with _backends.use_backend("reference"):
        return plain(torch.from_numpy(batch)).numpy()


@torch.inference_mode()
def tolerance(model: Emsr, precision: str) -> Tolerance:
    """Return how far a correct runtime of ``precision`` may be from PyTorch's float32, measured on real tiles.

    A correct runtime rounds as PyTorch does in that precision, in another order: it has at most twice PyTorch's error
    (the rule for kernels). For float32 this error is measured against float64, and added once more for PyTorch's own.
    For half precision it is measured against float32, in bfloat16, and scaled by the unit roundoff, because PyTorch's
    float16 takes minutes on a CPU.
    """
    tiles = torch.from_numpy(real_tiles(_SIDE, _SIDE))
    plain = copy.deepcopy(model).cpu().float().eval()
    with _backends.use_backend("reference"):
        own = plain(tiles)
        if precision == "fp32":
            error, factor = (own - plain.double()(tiles.double())).abs(), 3.0
        else:
            error, factor = (Graph(model, "bf16")(tiles) - own).abs(), 2.0 * _OF_BF16[precision]
    return Tolerance(factor * float(error.max()), factor * float(error.mean()))

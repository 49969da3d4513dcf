"""The expected error from disagreement and residual: three coefficients, fitted where the truth is known."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from emsr_fast.errors import CheckpointError
from emsr_fast.publish import write_file
from emsr_fast.reading import parse_json, read_regular


@dataclass(frozen=True)
class Calibration:
    """error**2 = floor + gain_disagreement * disagreement**2 + gain_residual * residual**2, in the model's [0, 1]."""

    floor: float  # what neither shows: detail that LR has lost, errors which all runs share
    gain_disagreement: float
    gain_residual: float
    model_sha256: str  # of the weights it was measured with
    measured_on: dict[str, Any] = field(default_factory=dict)

    def error(self, disagreement: np.ndarray, residual: np.ndarray) -> np.ndarray:
        """Return the expected root-mean-square error; all three are in the model's range and of one shape."""
        squares = self.floor + self.gain_disagreement * disagreement**2 + self.gain_residual * residual**2
        root: np.ndarray = np.sqrt(squares)
        return root


def fit(disagreement: np.ndarray, residual: np.ndarray, squared_error: np.ndarray) -> tuple[float, float, float]:
    """Return floor and gains, none negative, of the least-squares fit to the squared error.

    Args:
        disagreement, residual: (N,), the model's range.
        squared_error: (N,); if the reference is noisy, minus the variance of its noise, so that some are negative.
    """
    features = np.stack([np.ones_like(disagreement), disagreement**2, residual**2], axis=1).astype(np.float64)
    wanted = squared_error.astype(np.float64)
    best, least = np.zeros(3), math.inf
    # with three unknowns, every set of those that are not at their bound can be tried
    for number in (1, 2, 3):
        for chosen in map(list, combinations(range(3), number)):
            found = np.zeros(3)
            found[chosen] = np.linalg.lstsq(features[:, chosen], wanted, rcond=None)[0]
            loss = float(((features @ found - wanted) ** 2).sum())
            if (found >= 0).all() and loss < least:
                best, least = found, loss
    return float(best[0]), float(best[1]), float(best[2])


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Return the rank correlation of two samples, (N,); NaN if one is constant."""
    ranks = [_ranks(values) for values in (first, second)]
    if min(float(np.ptp(rank)) for rank in ranks) == 0:
        return math.nan
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    # equal values share the mean of their ranks
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last: np.ndarray = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[group.ravel()])


def calibration_curve(
    expected: np.ndarray, squared_error: np.ndarray, bins: int = 10
) -> Sequence[tuple[float, float, int]]:
    """Return (root mean square of expected, of error, pixels) for ``bins`` equally large groups by ``expected``.

    Args:
        expected: (N,).
        squared_error: (N,); if the reference is noisy, minus the variance of its noise. Groups below 0 count as 0.
    """
    order = np.argsort(expected, kind="stable")
    return [
        (
            float(np.sqrt((expected[part] ** 2).mean())),
            math.sqrt(max(0.0, float(squared_error[part].mean()))),
            int(part.size),
        )
        for part in np.array_split(order, bins)
        if part.size
    ]


def calibration_path(model: Path) -> Path:
    """Return the path of the calibration, beside the model file ``model``."""
    return model.with_suffix(".trust.json")


def read_calibration(path: Path, model_sha256: str) -> Calibration:
    """Return the calibration in ``path``.

    Raises:
        CheckpointError: it is damaged, or of other weights.
    """
    try:
        values = parse_json(read_regular(path))
        found = Calibration(**values)
        numbers = (found.floor, found.gain_disagreement, found.gain_residual)
        if not all(math.isfinite(number) and number >= 0 for number in numbers):
            raise ValueError(f"its coefficients are {numbers}, not all finite and 0 or more")
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"calibration {path} cannot be read: {error}; measure it again, or delete it") from error
    if found.model_sha256 != model_sha256:
        raise CheckpointError(
            f"calibration {path} is of other weights ({found.model_sha256[:12]}, the model's are {model_sha256[:12]}); "
            "measure it again, or delete it"
        )
    return found


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write ``calibration`` as JSON."""
    write_file(path.resolve(), f"{json.dumps(asdict(calibration), indent=1)}\n".encode())

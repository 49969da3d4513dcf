"""The map of the expected error compared with the true error: rank correlation and a calibration curve."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from emsr_fast.evaluate.svg import Line, line_chart
from emsr_fast.metrics import affine_coefficients
from emsr_fast.trust.calibration import calibration_curve, spearman
from emsr_fast.trust.maps import box_mean

_REACH = 4  # px: the error nearby is that of 9x9 px, as large as what the maps average over
_STEP = 3  # px: neighbours say the same


@dataclass
class TrustCheck:
    """Expected and true errors of all samples, every third pixel each way; grey values of the reference."""

    expected: list[np.ndarray] = field(default_factory=list)
    error: list[np.ndarray] = field(default_factory=list)
    nearby: list[np.ndarray] = field(default_factory=list)

    def add(self, expected: np.ndarray, image: np.ndarray, fixed: np.ndarray) -> None:
        """Add a sample: map, result and reference, (H, W) each. The result is first fitted to the reference."""
        gain, offset = affine_coefficients(image, fixed)
        error = gain * image.astype(np.float64) + offset - fixed
        nearby = np.sqrt(box_mean(error**2, _REACH))
        for kept, values in ((self.expected, abs(gain) * expected), (self.error, error), (self.nearby, nearby)):
            kept.append(values[::_STEP, ::_STEP].ravel())

    def as_json(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        expected, error, nearby = (np.concatenate(kept) for kept in (self.expected, self.error, self.nearby))
        return {
            "expected_rms": float(np.sqrt((expected**2).mean())),
            "true_rms": float(np.sqrt((error**2).mean())),
            "rank_correlation_nearby": _known(spearman(expected, nearby)),
            "rank_correlation_pixel": _known(spearman(expected, np.abs(error))),
            "calibration_curve": [list(group) for group in calibration_curve(expected, error**2)],
        }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def trust_section(found: Mapping[str, Any]) -> str:
    """Return a section of the page from the figures of ``TrustCheck.as_json``."""
    curve = np.array([group[:2] for group in found["calibration_curve"]])
    ends = np.array([curve.min(), curve.max()])
    chart = line_chart(
        "Calibration of the expected error: ten equal groups of pixels",
        [Line("measured", curve[:, 0], curve[:, 1], 0, dots=True), Line("as it should be", ends, ends, 2)],
        x_label="expected error, grey values",
        y_label="true error",
    )
    nearby, pixel = (
        "none (constant)" if found[name] is None else f"{found[name]:.2f}"
        for name in ("rank_correlation_nearby", "rank_correlation_pixel")
    )
    return (
        f"<h2>Trust</h2><ul><li>Expected error {found['expected_rms']:.3g}, true error {found['true_rms']:.3g} "
        "grey values (root mean square, after the affine fit; the noise of the reference counts as error).</li>"
        f"<li>Rank correlation of the expected error with the true one: {nearby} for the error nearby (9x9 px), "
        f"{pixel} for that of single pixels. 1 is a perfect ranking, 0 none.</li>"
        "<li>Errors that all runs of the network share are not in the map.</li></ul>"
        f"<div class='charts'>{chart}</div>"
    )

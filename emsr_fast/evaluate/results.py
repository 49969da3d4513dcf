"""The results of an evaluation: rows of the table, curves, and samples that were left out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from emsr_fast.evaluate.inputs import EvaluationInputs
from emsr_fast.evaluate.measures import IMAGES, SampleFigures
from emsr_fast.evaluate.samples import Sample
from emsr_fast.evaluate.trust import TrustCheck
from emsr_fast.metrics import RingCorrelation, added

# of a thousand slices, nobody looks at every curve
_CURVES_KEPT = 20


def _place(sample: Sample) -> dict[str, int]:
    rows, cols = sample.rows, sample.cols
    return {"slice": sample.z, "y0": rows.start, "y1": rows.stop, "x0": cols.start, "x1": cols.stop}


@dataclass
class RingCurves:
    """The ring correlations of one image: all samples together, and the first of them one by one."""

    together: RingCorrelation
    each: list[RingCorrelation]

    def add(self, curve: RingCorrelation) -> None:
        """Add the curve of another sample."""
        self.together = added([self.together, curve])
        if len(self.each) < _CURVES_KEPT:
            self.each.append(curve)


@dataclass
class MeanCurve:
    """The mean of decorrelation curves."""

    frequency: np.ndarray  # cycles per pixel
    total: np.ndarray
    number: int = 1

    @property
    def value(self) -> np.ndarray:
        """The mean, (R,)."""
        return self.total / self.number


@dataclass
class Evaluation:
    """Everything that the report shows."""

    inputs: EvaluationInputs
    slices: range  # that samples were chosen from
    samples: list[Sample] = field(default_factory=list)  # measured
    rows: list[dict[str, Any]] = field(default_factory=list)  # of the table: slice, region, image, figures
    ring_curves: dict[str, RingCurves] = field(default_factory=dict)  # by image
    single_curves: dict[str, RingCurves] = field(default_factory=dict)
    decorrelations: dict[str, MeanCurve] = field(default_factory=dict)
    trust: TrustCheck = field(default_factory=TrustCheck)
    skipped: list[str] = field(default_factory=list)  # samples left out, and why
    left_out: list[dict[str, Any]] = field(default_factory=list)  # their rows, without figures but with the reason

    def add(self, sample: Sample, figures: SampleFigures) -> None:
        """Add the figures of ``sample``."""
        place = _place(sample)
        self.samples.append(sample)
        self.rows += [{**place, **row} for row in figures.rows]
        for kept, curves in ((self.ring_curves, figures.ring_curves), (self.single_curves, figures.single_curves)):
            for name, curve in curves.items():
                if name in kept:
                    kept[name].add(curve)
                else:
                    kept[name] = RingCurves(curve, [curve])
        for name, found in figures.decorrelations.items():
            if name in self.decorrelations:
                self.decorrelations[name].total = self.decorrelations[name].total + found.deciding
                self.decorrelations[name].number += 1
            else:
                self.decorrelations[name] = MeanCurve(found.frequency, found.deciding)

    def leave_out(self, sample: Sample, images: Iterable[str], reason: str) -> None:
        """Note that ``sample`` was left out, and why."""
        self.skipped.append(f"{sample.describe()}: {reason}")
        shown = [name for name in IMAGES if name in images]
        self.left_out += [{**_place(sample), "image": name, "left_out": reason} for name in shown]

    def table(self) -> list[dict[str, Any]]:
        """Return the rows of all chosen samples by slice, including those left out."""
        return sorted(self.rows + self.left_out, key=lambda row: int(row["slice"]))

    def values(self, image: str, figure: str) -> np.ndarray:
        """Return ``figure`` of ``image`` for each sample, (samples,), NaN where it is missing."""
        found = [row.get(figure) for row in self.rows if row["image"] == image]
        return np.array([np.nan if value is None else value for value in found], dtype=np.float64)

    def mean(self, image: str, figure: str) -> float | None:
        """Return the mean of ``figure`` over the samples that have it, None if none has."""
        values = self.values(image, figure)
        values = values[~np.isnan(values)]
        return float(values.mean()) if values.size else None

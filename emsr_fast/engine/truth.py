"""The truth test: before an engine is used, its results on real tiles are compared with PyTorch in float32.

An engine that silently computes in another precision, or wrongly for some batch, returns pictures that look right.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from emsr_fast.convert.accuracy import in_pytorch, real_tiles, tolerance
from emsr_fast.convert.onnx_model import smallest_side
from emsr_fast.convert.shapes import Shapes
from emsr_fast.engine.base import Engine
from emsr_fast.model.network import Emsr

_IDENTICAL = 3  # rows of the batch of identical ones
# what a layer may compute in when the graph's precision is the key; a graph always has layers in float32
_ALLOWED = {"fp32": {"fp32"}, "fp16": {"fp32", "fp16"}, "bf16": {"fp32", "bf16"}}


@dataclass(frozen=True)
class Truth:
    """The result of a truth test; differences are in the model's intensities, usually [0, 1]."""

    passed: bool
    reason: str  # why not, or nothing
    precision: str
    largest: float  # difference from PyTorch in float32
    largest_allowed: float
    mean: float
    mean_allowed: float
    rows_differ: float  # by so much, the outputs of identical tiles in one batch
    sizes: list[str]  # LR tiles that were run
    layers: dict[str, int]  # "CONVOLUTION fp16": how many, as the runtime says; empty if it does not
    when: str  # UTC

    def __str__(self) -> str:
        layers = ", ".join(f"{kind} {count}" for kind, count in self.layers.items())
        return (
            f"{'passed' if self.passed else 'FAILED'} on {' and '.join(self.sizes)} px: from PyTorch float32 "
            f"at most {self.largest:.1e} ({self.largest_allowed:.1e} allowed), mean {self.mean:.1e} "
            f"({self.mean_allowed:.1e}); identical tiles differ by {self.rows_differ:.1e}; "
            f"layers: {layers or 'not told by the runtime'}"
        )

    def as_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return asdict(self)


def truth_test(engine: Engine, model: Emsr, layers: dict[str, int]) -> Truth:
    """Run real tiles and a batch of identical ones through ``engine`` and PyTorch.

    Args:
        engine: of any runtime; it may differ by at most the ``tolerance`` of its precision.
        model: the network that the engine was made from.
        layers: the precision of the layers as the runtime tells it, "KIND precision": count.
    """
    allowed = tolerance(model, engine.precision)
    largest, mean, rows_differ, reasons = 0.0, 0.0, 0.0, []
    sizes = _sizes(engine.shapes, smallest_side(model))
    for rows, cols in sizes:
        tiles = real_tiles(rows, cols)
        wanted = in_pytorch(model, tiles)
        identical = np.repeat(tiles[:1], max(_IDENTICAL, engine.shapes.most[0] if engine.shapes else 0), axis=0)
        got = engine.run(tiles)
        got_identical = engine.run(identical)
        if got.shape != wanted.shape or got_identical.shape != (len(identical), *wanted.shape[1:]):
            reasons.append(f"shape {got.shape}, not {wanted.shape}")
            continue
        error, error_identical = np.abs(got - wanted), np.abs(got_identical - wanted[:1])
        for what, difference in (("tiles", error), ("a batch of identical tiles", error_identical)):
            if reason := allowed.why_not(difference):
                reasons.append(f"{what} of {rows}x{cols} px: {reason}")
        largest = float(np.max([largest, error.max(), error_identical.max()]))
        mean = float(np.max([mean, error.mean(), error_identical.mean()]))
        rows_differ = float(np.max([rows_differ, np.abs(got_identical - got_identical[:1]).max()]))
    if lower := sorted({kind.split()[-1] for kind in layers} - _ALLOWED[engine.precision]):
        reasons.append(f"layers compute in {', '.join(lower)}, asked was {engine.precision}")
    return Truth(
        passed=not reasons,
        reason="; ".join(reasons),
        precision=engine.precision,
        largest=largest,
        largest_allowed=allowed.largest,
        mean=mean,
        mean_allowed=allowed.mean,
        rows_differ=rows_differ,
        sizes=[f"{rows}x{cols}" for rows, cols in sizes],
        layers=layers,
        when=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    )


def _sizes(shapes: Shapes | None, smallest: int) -> list[tuple[int, int]]:
    """Return rows and columns to test: the best shape, and an odd or the smallest one if sizes vary."""
    if shapes is None:
        return [(192, 192), (61, 75)]
    odd = tuple(
        max(low, min(side, high)) for low, side, high in zip(shapes.least, (1, 61, 75), shapes.most, strict=True)
    )
    return list(dict.fromkeys([(shapes.best[1], shapes.best[2]), (max(odd[1], smallest), max(odd[2], smallest))]))

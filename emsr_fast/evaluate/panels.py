"""The images of the report: the same place of every volume, in one grey scale, as PNG inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from emsr_fast.evaluate.results import Evaluation
from emsr_fast.evaluate.samples import Sample
from emsr_fast.metrics import affine_coefficients

_SHOWN_PX = 480  # HR side of what is shown: some megabytes for all of them
_GREY_PERCENTILES = (0.1, 99.9)
_DIFFERENCE_PERCENTILE = 99.5


@dataclass(frozen=True)
class Panel:
    """One image of a row."""

    title: str
    note: str  # what its greys mean
    url: str  # data: with the PNG
    shape: tuple[int, int]  # of the PNG


@dataclass(frozen=True)
class Row:
    """All images of one place."""

    title: str
    shape: tuple[int, int]  # HR px, which every panel fills
    panels: tuple[Panel, ...]


def rows_to_show(evaluation: Evaluation) -> list[Row]:
    """Return the worst, the median and the best sample by PSNR; first, middle and last without a reference."""
    order = np.arange(len(evaluation.samples))
    names = ("first", "middle", "last")
    decibels = evaluation.values("sr", "psnr_db")
    if not np.isnan(decibels).any():
        order, names = np.argsort(decibels, kind="stable"), ("lowest PSNR", "median PSNR", "highest PSNR")
    picked = dict(zip((order[-1], order[len(order) // 2], order[0]), reversed(names), strict=True))
    return [_row(evaluation, int(place), name) for place, name in reversed(picked.items())]


def _row(evaluation: Evaluation, place: int, why: str) -> Row:
    inputs, sample = evaluation.inputs, evaluation.samples[place]
    shown = _middle(sample, inputs.scale or 1)
    images = inputs.read(shown)
    fixed = images.get(inputs.fixed_name or "", images["sr"])
    # an image without contrast here cannot be fitted and is shown as it is
    fits = {
        name: (1.0, 0.0) if image is fixed or image.min() == image.max() else affine_coefficients(image, fixed)
        for name, image in images.items()
        if name != "lr"
    }
    if "lr" in images:
        fits["lr"] = fits["bicubic"]
    exact = {name: fits[name][0] * image.astype(np.float64) + fits[name][1] for name, image in images.items()}
    low, high = (float(value) for value in np.percentile(fixed.astype(np.float64), _GREY_PERCENTILES))
    high = high if high > low else low + 1
    panels = [
        _panel(title, exact[name], low, high, f"black {low:.4g}, white {high:.4g}")
        for name, title in (
            ("lr", "LR, pixels repeated"),
            ("bicubic", "bicubic of LR"),
            ("sr", "SR"),
            ("reference", "reference"),
            ("second scan", "second scan"),
        )
        if name in exact
    ]
    panels += _difference(exact, inputs.fixed_name or "bicubic")
    title = f"{shown.describe()} ({why})"
    return Row(title, shown.shape, tuple(panels))


def _middle(sample: Sample, step: int) -> Sample:
    spans = []
    for span in (sample.rows, sample.cols):
        length = span.stop - span.start
        side = min(length, _SHOWN_PX // step * step)
        start = span.start + (length - side) // 2 // step * step
        spans.append(slice(start, start + side))
    return Sample(sample.z, spans[0], spans[1])


def _difference(exact: Mapping[str, np.ndarray], other: str) -> list[Panel]:
    if other not in exact:
        return []
    difference = exact["sr"] - exact[other]
    reach = float(np.percentile(np.abs(difference), _DIFFERENCE_PERCENTILE)) or 1.0
    note = f"middle grey is no difference, black {-reach:.3g}, white {reach:+.3g} grey values"
    return [_panel(f"SR less {other}", difference, -reach, reach, note)]


def _panel(title: str, image: np.ndarray, low: float, high: float, note: str) -> Panel:
    grey = np.rint(np.clip((image - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(grey).save(file, format="PNG", optimize=True)
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
    height, width = grey.shape
    return Panel(title, note, url, (height, width))

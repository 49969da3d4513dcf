"""The figures as CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

import numpy as np

from emsr_fast.evaluate.measures import DEFINITIONS
from emsr_fast.evaluate.results import Evaluation, RingCurves
from emsr_fast.evaluate.summary import summary

PLACE = ("slice", "y0", "y1", "x0", "x1", "image", "left_out")


def columns_of(evaluation: Evaluation) -> list[str]:
    """Return the figures that at least one row has, in the order of ``DEFINITIONS``."""
    return [name for name in DEFINITIONS if any(row.get(name) is not None for row in evaluation.rows)]


def as_csv(evaluation: Evaluation) -> str:
    """Return one line for each slice and image; a missing figure is empty, an infinite one "inf".

    A slice that was left out has its reason in the column "left_out", and no figures.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, [*PLACE, *columns_of(evaluation)], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(evaluation.table())
    return text.getvalue()


def as_json(evaluation: Evaluation, head: dict[str, Any]) -> dict[str, Any]:
    """Return everything but the images, as JSON values; infinite figures, such as those of equal images, are null.

    A slice that was left out has null for every figure, and the reason as "left_out".
    """
    inputs = evaluation.inputs
    volumes = {"sr": inputs.sr, "lr": inputs.lr, "reference": inputs.reference, "second scan": inputs.second_scan}
    grey = inputs.grey
    content = {
        **head,
        "volumes": {
            name: {
                "file": volume.info.path.name,
                "format": volume.info.format,
                "shape": list(volume.shape),
                "dtype": volume.dtype.name,
                "voxel_size_nm": list(volume.info.voxel_size_nm),
                "first_slice": inputs.first_slice[name],
            }
            for name, volume in volumes.items()
            if volume is not None
        },
        "settings": {
            "provenance": vars(inputs.provenance),
            "scale": inputs.scale,
            "pixel_nm": inputs.pixel_nm,
            "pixel_nm_from": inputs.pixel_nm_from,
            "compared_with": inputs.fixed_name,
            "data_range": grey.high - grey.low,
            "data_range_from": f"{grey.low:g} .. {grey.high:g}, {grey.origin}",
            "slices": [evaluation.slices.start, evaluation.slices.stop],
        },
        "skipped": evaluation.skipped,
        "summary": dict(summary(evaluation)),
        "means": means(evaluation),
        "curves": {
            "ring_correlation": _curves(evaluation.ring_curves),
            "single_image_ring_correlation": _curves(evaluation.single_curves),
            "decorrelation": {
                name: {"cycles_per_px": curve.frequency, "mean": curve.value}
                for name, curve in evaluation.decorrelations.items()
            },
        },
        **({"trust": evaluation.trust.as_json()} if evaluation.trust.expected else {}),
        "slices": _rows(evaluation),
    }
    return _plain(content)


def _rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    figures = [name for name in DEFINITIONS if any(name in row for row in evaluation.rows)]
    return [
        {**row, **dict.fromkeys(figures)} if row.get("left_out") else {**row, "left_out": None}
        for row in evaluation.table()
    ]


def means(evaluation: Evaluation) -> dict[str, dict[str, dict[str, float]]]:
    """Return mean, standard deviation and number of samples of every figure, by image."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for image in dict.fromkeys(row["image"] for row in evaluation.rows):
        for figure in columns_of(evaluation):
            values = evaluation.values(image, figure)
            values = values[~np.isnan(values)]
            if values.size:
                spread = float(values.std(ddof=1)) if values.size > 1 and np.isfinite(values).all() else math.nan
                one = {"mean": float(values.mean()), "sd": spread, "n": int(values.size)}
                found.setdefault(image, {})[figure] = one
    return found


def dumped(content: dict[str, Any]) -> str:
    """Return ``content`` as JSON text that any reader takes."""
    return json.dumps(content, allow_nan=False, indent=1) + "\n"


def _curves(curves: dict[str, RingCurves]) -> dict[str, Any]:
    # ring 0 is the mean, which was taken away
    return {
        name: {
            "cycles_per_px": one.together.frequency[1:],
            "together": one.together.value[1:],
            "first_slices": [curve.value[1:] for curve in one.each],
        }
        for name, one in curves.items()
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, np.ndarray):
        return [_plain(float(f"{inner:.5g}")) for inner in value]
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

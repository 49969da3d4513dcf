"""The charts of the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from emsr_fast.evaluate.results import Evaluation, RingCurves
from emsr_fast.evaluate.svg import Line, line_chart
from emsr_fast.metrics.frc import THRESHOLD

_STYLES = {"sr": 0, "bicubic": 1, "reference": 2, "second scan": 3}
_NAMES = {"sr": "SR", "bicubic": "bicubic of LR", "reference": "reference", "second scan": "second scan"}
_PER_SLICE = (
    ("psnr_db", "PSNR of each slice", "dB"),
    ("ssim", "Structural similarity of each slice", "SSIM"),
    ("gradient_error", "Error of slopes of each slice", "relative"),
    ("seam_ratio", "Jump across tile borders", "times that elsewhere"),
)


def charts(evaluation: Evaluation) -> list[str]:
    """Return every chart that has data, as HTML."""
    inputs, drawn = evaluation.inputs, []
    partner = "second scan" if inputs.second_scan else "reference"
    if evaluation.ring_curves:
        drawn.append(_rings(f"Fourier ring correlation with the {partner}", evaluation.ring_curves, inputs.pixel_nm))
    if evaluation.single_curves:
        title = "Fourier ring correlation inside one image (chessboard halves)"
        drawn.append(_rings(title, evaluation.single_curves, inputs.pixel_nm))
    if evaluation.decorrelations:
        lines = [
            Line(_NAMES[name], curve.frequency, curve.value, _STYLES[name])
            for name, curve in evaluation.decorrelations.items()
        ]
        drawn.append(
            line_chart(
                "Decorrelation analysis: the deciding curves, mean of all slices",
                lines,
                x_label=_x_label(inputs.pixel_nm),
                y_label="d(r)",
                x_tick=_tick(inputs.pixel_nm),
            )
        )
    return drawn + [chart for figure in _PER_SLICE if (chart := _by_slice(evaluation, *figure))]


def _rings(title: str, curves: Mapping[str, RingCurves], pixel_nm: float | None) -> str:
    faint = [
        Line("", curve.frequency[1:], curve.value[1:], _STYLES[name], faint=True)
        for name, one in curves.items()
        if name == "sr"
        for curve in one.each
    ]
    together = [
        Line(f"{_NAMES[name]}, all slices", one.together.frequency[1:], one.together.value[1:], _STYLES[name])
        for name, one in curves.items()
    ]
    return line_chart(
        title,
        faint + together,
        x_label=_x_label(pixel_nm),
        y_label="correlation",
        y_range=(-0.2, 1.02),
        levels=[(THRESHOLD, "1/7")],
        x_tick=_tick(pixel_nm),
    )


def _x_label(pixel_nm: float | None) -> str:
    return "cycles per SR pixel" + ("" if pixel_nm is None else " (period in nm)")


def _tick(pixel_nm: float | None) -> Callable[[float], str]:
    def text(frequency: float) -> str:
        if pixel_nm is None or frequency <= 0:
            return f"{frequency:g}"
        return f"{frequency:g} ({pixel_nm / frequency:.3g})"

    return text


def _by_slice(evaluation: Evaluation, figure: str, title: str, unit: str) -> str | None:
    place = np.array([sample.z for sample in evaluation.samples], dtype=np.float64)
    lines = [
        Line(_NAMES[name], place, values, _STYLES[name], dots=True)
        for name in ("sr", "bicubic")
        if np.isfinite(values := evaluation.values(name, figure)).any()
    ]
    return line_chart(title, lines, x_label="slice", y_label=unit) if lines else None

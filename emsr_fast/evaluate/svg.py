"""Line charts as inline SVG, without script or library; they work in a screen reader and in grey."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

_WIDTH, _HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 36, 12, 46
_MOST_POINTS = 400


@dataclass(frozen=True)
class Line:
    """One curve; NaN breaks it."""

    name: str  # in the legend; "" for none
    x: np.ndarray
    y: np.ndarray
    style: int = 0  # colour and dashes, 0 to 3
    faint: bool = False
    dots: bool = False


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
    levels: Sequence[tuple[float, str]] = (),
    x_tick: Callable[[float], str] = lambda value: f"{value:g}",
) -> str:
    """Return a chart as an SVG element with its title, axes and legend.

    Args:
        y_range: the ends of the y axis; by default those of the curves.
        levels: horizontal lines with their names.
        x_tick: the text of a tick on the x axis.
    """
    x_low, x_high = _extent([line.x for line in lines])
    y_low, y_high = y_range or _padded(*_extent([line.y for line in lines]))

    def right(x: float) -> float:
        return _LEFT + (x - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT)

    def down(y: float) -> float:
        return _HEIGHT - _BOTTOM - (y - y_low) / (y_high - y_low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = []
    for tick in _ticks(y_low, y_high):
        parts += [_across("grid", down(tick)), _text(_LEFT - 6, down(tick) + 4, f"{tick:g}", "end")]
    parts += [_text(right(tick), _HEIGHT - _BOTTOM + 16, x_tick(tick)) for tick in _ticks(x_low, x_high)]
    for level, name in levels:
        parts += [_across("level", down(level)), _text(_WIDTH - _RIGHT - 4, down(level) - 4, name, "end")]
    for line in lines:
        parts += _drawn(line, right, down)
    parts.append(_text((_LEFT + _WIDTH) / 2, _HEIGHT - 8, x_label))
    middle = (_HEIGHT - _BOTTOM + _TOP) / 2
    parts.append(f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>')
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
        f"{_legend(lines)}</figure>"
    )


def _across(look: str, y: float) -> str:
    return f'<line class="{look}" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _drawn(line: Line, right: Callable[[float], float], down: Callable[[float], float]) -> list[str]:
    step = max(1, len(line.x) // _MOST_POINTS)
    look = f"s{line.style}{' faint' if line.faint else ''}"
    runs: list[list[str]] = [[]]
    for x, y in zip(line.x[::step], line.y[::step], strict=True):
        if math.isfinite(x) and math.isfinite(y):
            runs[-1].append(f"{right(float(x)):.1f},{down(float(y)):.1f}")
        elif runs[-1]:
            runs.append([])
    drawn = [f'<polyline class="{look}" points="{" ".join(run)}"/>' for run in runs if len(run) > 1]
    if line.dots or any(len(run) == 1 for run in runs):
        for place in (place for run in runs for place in run):
            x, y = place.split(",")
            drawn.append(f'<circle class="{look}" cx="{x}" cy="{y}" r="3"/>')
    return drawn


def _legend(lines: Sequence[Line]) -> str:
    key = '<svg viewBox="0 0 36 10" aria-hidden="true"><line class="s{}" x1="0" x2="36" y1="5" y2="5"/></svg>'
    items = "".join(f"<li>{key.format(line.style)}{escape(line.name)}</li>" for line in lines if line.name)
    return f'<ul class="legend">{items}</ul>'


def _extent(arrays: Sequence[np.ndarray]) -> tuple[float, float]:
    values = np.concatenate([array[np.isfinite(array)] for array in arrays])
    if values.size == 0:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _padded(low: float, high: float) -> tuple[float, float]:
    margin = 0.06 * (high - low)
    return low - margin, high + margin


def _ticks(low: float, high: float) -> list[float]:
    """Return about five round numbers from ``low`` to ``high``."""
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * unit for unit in (1, 2, 5, 10) if power * unit >= raw)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]

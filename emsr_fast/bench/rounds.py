"""Times candidates in turns, so that other work on the machine slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Run = Callable[[Tensor], Tensor]

# a float32 result differs from torch's own by the order of its sums; further off, it is another result
WRONG_FROM = 10.0


def measure(runs: Mapping[str, Run], y: Tensor, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of every run on ``y``, a list for each candidate. A round runs each once, in rotated order."""
    names = list(runs)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            start = time.perf_counter()
            runs[name](y)
            if y.is_cuda:
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def errors(runs: Mapping[str, Run], y: Tensor, exact: Tensor) -> dict[str, float]:
    """Return each candidate's largest error against ``exact``, relative to its largest value; also warms it up."""
    found = {}
    for name, run in runs.items():
        result = run(y)
        same = result.shape == exact.shape and bool(torch.isfinite(result).all())
        found[name] = ((result - exact).abs().max() / exact.abs().max()).item() if same else float("inf")
    return found


def rows(
    seconds: Mapping[str, Sequence[float]], error: Mapping[str, float], *, ours: str, plain: str
) -> list[dict[str, Any]]:
    """Return a row per candidate: seconds, how many times as long as ``ours`` it took, error, whether it is right.

    A ratio is the median of the rounds' ratios. A result is right if its error is below ``WRONG_FROM`` times that of
    ``plain``.
    """
    made = []
    for name, times in seconds.items():
        ratios = [other / own for other, own in zip(times, seconds[ours], strict=True)]
        made.append(
            {
                "name": name,
                "seconds_median": statistics.median(times),
                "seconds_least": min(times),
                "seconds_most": max(times),
                "ratio_median": statistics.median(ratios),
                "ratio_least": min(ratios),
                "ratio_most": max(ratios),
                "error": error[name],
                "right": error[name] <= WRONG_FROM * error[plain],
            }
        )
    return made


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Return ``rows`` as a Markdown table."""
    lines = [
        "| | seconds: median (least to most) | times ours: median (least to most) | error against float64 | result |",
        "|---|---|---|---|---|",
    ]
    for row in found:
        seconds = f"{row['seconds_median']:.3g} ({row['seconds_least']:.3g} to {row['seconds_most']:.3g})"
        ratios = f"{row['ratio_median']:.2f} ({row['ratio_least']:.2f} to {row['ratio_most']:.2f})"
        result = "right" if row["right"] else "**WRONG**"
        lines.append(f"| {row['name']} | {seconds} | {ratios} | {row['error']:.1e} | {result} |")
    return "\n".join(lines)

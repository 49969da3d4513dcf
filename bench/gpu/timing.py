"""Times of GPU work: one call, candidates that take turns, a call as a CUDA graph."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

Run = Callable[[], object]


def milliseconds(run: Run, device: torch.device, least: float = 5.0) -> float:
    """Return the mean time of a call, over as many as take about ``least`` ms."""
    if device.type == "cpu":
        start = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - start)

    def timed(times: int) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(times):
            run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / times

    return timed(max(1, round(least / max(timed(1), 1e-3))))


def compare(runs: dict[str, Run], device: torch.device, rounds: int) -> dict[str, float]:
    """Return the median time in ms of each candidate; they take turns, in rotated order."""
    names = list(runs)
    for run in runs.values():
        run()
    found: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            found[name].append(milliseconds(runs[name], device))
    return {name: statistics.median(times) for name, times in found.items()}


def captured(call: Callable[[], Tensor], device: torch.device) -> Run:
    """Return a replay of ``call`` as a CUDA graph; ``call`` itself on a CPU."""
    if device.type == "cpu":
        return call
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
        # what waits for the device cannot be captured, and in torch before 2.12 a capture that fails takes
        # every later one with it: captures_underway stays, and empty_cache raises
        torch.cuda.set_sync_debug_mode("error")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay

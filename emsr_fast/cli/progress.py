"""The progress of a job: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from emsr_fast.cli.output import cleaned, put, uncleaned
from emsr_fast.threads import Thread

_FIRST_LINE_S = 5.0
_LINE_EVERY_S = 30.0


@contextmanager
def progress(lr_pixels: int) -> Iterator[Callable[[int], None]]:
    """Show progress over ``lr_pixels`` on stderr; yield a function to call with the LR pixels just done."""
    shown = _bar(lr_pixels) if sys.stderr.isatty() else lines(lr_pixels, sys.stderr)
    with shown as done:
        yield done


@contextmanager
def _bar(lr_pixels: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TimeRemainingColumn
    from rich.text import Text

    class RateColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed / 1e6:.3f} LR Mpx/s" if task.speed else "- LR Mpx/s")

    columns = (BarColumn(), TaskProgressColumn(), RateColumn(), TimeRemainingColumn(elapsed_when_finished=True))
    # speed over the last minutes: single tiles are too coarse for the default half minute
    console = Console(file=uncleaned(sys.stderr))  # the bar is drawn with control characters
    # lines printed meanwhile go through the bar's own streams
    with Progress(*columns, console=console, speed_estimate_period=180.0) as bar, cleaned():
        task = bar.add_task("", total=lr_pixels)
        yield lambda done: bar.advance(task, done)


@contextmanager
def lines(
    lr_pixels: int, stream: TextIO, first_s: float = _FIRST_LINE_S, every_s: float = _LINE_EVERY_S
) -> Iterator[Callable[[int], None]]:
    """Print a line after ``first_s`` seconds and then every ``every_s``, also while one tile takes longer."""
    start, finished = time.monotonic(), threading.Event()
    count = [0]

    def advance(done: int) -> None:
        count[0] += done

    def report() -> None:
        wait = first_s
        while not finished.wait(wait):
            wait = every_s
            put(_line(count[0], lr_pixels, time.monotonic() - start), stream=stream)

    # a thread of its own: the main one may be inside the network for minutes
    reporter = Thread(report, "emsr-progress", daemon=True)
    try:
        yield advance
    finally:
        finished.set()
        reporter.wait()


def _line(done: int, total: int, seconds: float) -> str:
    share = 100 * done / max(total, 1)
    if done == 0:
        return f"{share:5.1f} % after {_clock(seconds)}, first tile not finished"
    rate = done / seconds
    return f"{share:5.1f} % after {_clock(seconds)}, {rate / 1e6:.3f} LR Mpx/s, {_clock((total - done) / rate)} left"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"

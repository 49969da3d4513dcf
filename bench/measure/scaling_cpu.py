"""How our network's time on a CPU grows with threads, image size and batch, as Markdown.

    python bench/measure/scaling_cpu.py --rounds 3 [--json FILE]

The paper's network with random weights. One process, rotated order; LR megapixels per second from the median of the
rounds, and how many times that of the first row, again the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from typing import NamedTuple

import torch

from emsr_fast import Emsr
from emsr_fast.bench import machine
from scripts import add_common, rerun_with_isa, write_json


class Case(NamedTuple):
    axis: str  # what is varied
    threads: int
    batch: int
    size: int


def cases(threads: int, sizes: list[int], batches: list[int], base: int) -> list[Case]:
    counts = sorted({1, *(n for n in (2, 4, 8, 16, 32, 64) if n < threads), threads})
    return [
        *(Case("threads", n, 1, base) for n in counts),
        *(Case("size", threads, 1, n) for n in sizes),
        *(Case("batch", threads, n, min(sizes)) for n in batches),
    ]


def measure(model: Emsr, wanted: list[Case], rounds: int) -> dict[Case, list[float]]:
    """Return seconds of every case, a list with one entry per round."""
    seconds: dict[Case, list[float]] = {case: [] for case in wanted}
    for turn in range(-1, rounds):  # round -1 warms up
        first = turn % len(wanted)
        for case in wanted[first:] + wanted[:first]:
            torch.set_num_threads(case.threads)
            y = torch.rand(case.batch, 1, case.size, case.size)
            start = time.perf_counter()
            with torch.inference_mode():
                model(y)
            if turn >= 0:
                seconds[case].append(time.perf_counter() - start)
    return seconds


def rows(seconds: dict[Case, list[float]]) -> list[dict[str, object]]:
    made = []
    first: dict[str, Case] = {}
    for case, times in seconds.items():
        base = first.setdefault(case.axis, case)
        pixels = case.batch * case.size**2
        base_pixels = base.batch * base.size**2
        ratios = [pixels / a / (base_pixels / b) for a, b in zip(times, seconds[base], strict=True)]
        made.append(
            {
                **case._asdict(),
                "seconds": times,
                "lr_mpx_per_s": pixels / 1e6 / statistics.median(times),
                "times_first": statistics.median(ratios),
            }
        )
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", default="64,128,256,341,512")
    parser.add_argument("--batches", default="1,2,4,8")
    parser.add_argument("--base", type=int, default=256, help="size at which threads are compared, LR pixels")
    add_common(parser)
    arguments = parser.parse_args()
    rerun_with_isa(arguments.isa)
    torch.manual_seed(0)
    sizes, batches = ([int(n) for n in text.split(",")] for text in (arguments.sizes, arguments.batches))
    wanted = cases(arguments.threads, sizes, batches, arguments.base)
    found = rows(measure(Emsr().eval(), wanted, arguments.rounds))
    torch.set_num_threads(arguments.threads)
    facts = machine.describe()
    print(f"{facts['processor']}, {os.cpu_count()} cores, {facts['kernels']}, {arguments.rounds} rounds\n")
    print("| varied | threads | batch | size | LR Mpx/s | times the first |\n|---|---|---|---|---|---|")
    for row in found:
        print(
            f"| {row['axis']} | {row['threads']} | {row['batch']} | {row['size']} | {row['lr_mpx_per_s']:.3f} | "
            f"{row['times_first']:.2f} |"
        )
    write_json(arguments.json, "scaling_cpu", {"rounds": arguments.rounds}, found)


if __name__ == "__main__":
    main()

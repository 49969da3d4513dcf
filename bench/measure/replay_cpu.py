"""What Python takes of the network's time on a CPU: passes computed call by call, and replayed, as Markdown.

    python bench/measure/replay_cpu.py --rounds 15 [--json FILE]

Shipped models, white noise. One process, both ways in turn, each first every other round; before that, results are
compared bit by bit.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from typing import Any

import torch

from emsr_fast import Emsr, load_model
from emsr_fast.bench import machine
from emsr_fast.model import replay
from scripts import add_common, rerun_with_isa, write_json

NETWORKS = ("emsr-x3", "emsr-x3-small")


def measure(model: Emsr, size: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of every round, by way."""
    y = torch.rand(1, 1, size, size)
    seconds: dict[str, list[float]] = {"computed": [], "replayed": []}
    with torch.inference_mode():
        if reason := replay.why_not(model, y):
            sys.exit(f"a pass of {size}x{size} px cannot be replayed: {reason}")
        ways = {"computed": model.compute, "replayed": model}
        recorded = model(y)
        if not torch.equal(model.compute(y), recorded) or not torch.equal(model(y), recorded):
            sys.exit(f"{size}x{size} px: a replay gave other pixels")
        for turn in range(rounds):
            for way in sorted(ways, reverse=turn % 2 == 1):
                start = time.perf_counter()
                ways[way](y)
                seconds[way].append(time.perf_counter() - start)
    return seconds


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| network | side, LR px | call by call, ms | replayed, ms | replayed / call by call |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        computed, replayed = (1e3 * statistics.median(row[way]) for way in ("computed", "replayed"))
        ratio = statistics.median(b / a for a, b in zip(row["computed"], row["replayed"], strict=True))
        lines.append(f"| {row['network']} | {row['size']} | {computed:.4g} | {replayed:.4g} | {ratio:.3f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--sizes", default="64,128,341")
    add_common(parser)
    arguments = parser.parse_args()
    rerun_with_isa(arguments.isa)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    rows = []
    for name in NETWORKS:
        model = load_model(name, device="cpu")
        for size in map(int, arguments.sizes.split(",")):
            rows.append({"network": name, "size": size, **measure(model, size, arguments.rounds)})
    facts = machine.describe()
    print(f"{facts['processor']}, {facts['threads']} threads, {facts['kernels']}, {arguments.rounds} rounds\n")
    print(table(rows))
    write_json(arguments.json, "replay_cpu", {"rounds": arguments.rounds}, rows)


if __name__ == "__main__":
    main()

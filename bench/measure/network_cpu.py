"""Time of the whole paper's network on a CPU beside other runtimes, as Markdown, and as JSON if asked for.

    python bench/measure/network_cpu.py --size 341 --rounds 5 --threads 2 [--isa avx2] [--json FILE]

One process; every round runs each candidate once, in rotated order; a ratio is the median of the rounds' ratios, so
that what else the machine does falls on all. Random weights; errors are against the same network in float64, relative
to its largest output; a candidate whose result is wrong is marked, not dropped. ONNX Runtime and OpenVINO take part
where they are installed. ``--isa`` starts a fresh process with our kernels limited to that instruction set. With avx2
PyTorch is limited, too; the other runtimes have no such limit.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch

from emsr_fast import Emsr
from emsr_fast.bench import machine, peers, rounds
from scripts import add_common, rerun_with_isa, write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=341, help="side of the image, LR pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="names of candidates, comma-separated; ours and eager are always in")
    add_common(parser)
    arguments = parser.parse_args()
    rerun_with_isa(arguments.isa)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = Emsr().eval()
    y = torch.rand(1, 1, arguments.size, arguments.size)
    exact = peers.exact(model, y)
    with tempfile.TemporaryDirectory() as folder:
        runs, missing = peers.candidates(model, y, Path(folder), arguments.threads)
        if arguments.only:
            kept = {peers.OURS, peers.PLAIN, *(name.strip() for name in arguments.only.split(","))}
            if unknown := kept - set(runs):
                sys.exit(f"no candidate {', '.join(sorted(unknown))}; there are: {', '.join(runs)}")
            runs = {name: run for name, run in runs.items() if name in kept}
        # the first run of each warms it up
        error = rounds.errors(runs, y, exact)
        seconds = rounds.measure(runs, y, arguments.rounds)
    found = rounds.rows(seconds, error, ours=peers.OURS, plain=peers.PLAIN)
    facts = machine.describe()
    print(f"{y.shape[-2]}x{y.shape[-1]}, {facts['threads']} threads, {facts['kernels']}, {arguments.rounds} rounds\n")
    print(rounds.table(found))
    for name, reason in missing.items():
        print(f"\n{name} took no part: {reason}")
    write_json(arguments.json, "network_cpu", {"size": arguments.size, "rounds": arguments.rounds}, found)


if __name__ == "__main__":
    main()

"""Processor time of this commit beside another one: the network and `emsr-fast infer`, as Markdown.

    python bench/measure/commits_cpu.py 660ad7a --rounds 5 --threads 1 [--json FILE]

Both commits are installed side by side from what git holds. They take turns, each first every other round, and each
run is a process of its own. A figure of a network is the median of its passes on white noise; `infer` counts from start
to end of the command, on a slice of real SEM. Processor time does not count what runs beside; on several threads it
counts those that wait.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tifffile
import torch

from emsr_fast.bench import machine
from scripts import add_common, rerun_with_isa, write_json
from slice_cpu import real_slice

sys.path.insert(0, str(Path(__file__).parents[1] / "guard"))
import compare

NETWORKS = ("emsr-x3-small", "emsr-x3")
COMPILED = ("csrc", "CMakeLists.txt", "setup.py")
PASSES = """
import statistics, sys, time, torch
from emsr_fast import load_model
name, size, passes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
model, y = load_model(name, device="cpu"), torch.rand(1, 1, size, size)
seconds = []
with torch.inference_mode():
    for _ in range(passes + 1):
        start = time.process_time()
        model(y)
        seconds.append(time.process_time() - start)
print(statistics.median(seconds[1:]))
"""


def run(site: Path, threads: int, *arguments: str) -> tuple[float, str]:
    """Run Python with the package in ``site``; return the processor seconds of the process, and its output."""
    environment = {**compare.environment(site), "OMP_NUM_THREADS": str(threads)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=environment, cwd=site, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with exit code {done.returncode}:\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, done.stdout


def once(site: Path, slice_file: Path, asked: argparse.Namespace) -> dict[str, float]:
    """Return the processor seconds of one commit, by what was measured."""
    seconds = {}
    for name in NETWORKS:
        _, printed = run(site, asked.threads, "-c", PASSES, name, str(asked.size), str(asked.passes))
        seconds[f"{name}, a pass at {asked.size}x{asked.size}"] = float(printed)
        out = str(slice_file.with_name("out.tif"))
        options = ("--model", name, "--device", "cpu", "--overwrite")
        whole, _ = run(site, asked.threads, "-m", "emsr_fast", "infer", str(slice_file), "-o", out, *options)
        seconds[f"{name}, `infer` of {asked.slice}x{asked.slice}"] = whole
    return seconds


def rows_of(base: list[dict[str, float]], head: list[dict[str, float]]) -> list[dict[str, Any]]:
    """Return a row for each measurement: seconds of both commits by round."""
    return [{"name": name, "base": [r[name] for r in base], "head": [r[name] for r in head]} for name in base[0]]


def table(rows: list[dict[str, Any]], settings: Mapping[str, Any]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        f"| | {settings['base']}, s | {settings['head']}, s | ratio: median (least to most) |",
        "|---|---|---|---|",
    ]
    for row in rows:
        ratios = [head / base for base, head in zip(row["base"], row["head"], strict=True)]
        before, after = (statistics.median(row[commit]) for commit in ("base", "head"))
        spread = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        lines.append(f"| {row['name']} | {before:.4g} | {after:.4g} | {spread} |")
    return "\n".join(lines)


def installed(base: str, head: str, folder: Path) -> tuple[Path, Path]:
    """Return where both commits are installed; compiled once where both have the same C++."""
    first = compare.install(base, folder / "base", None)
    return first, compare.install(head, folder / "head", first if compare.same(base, head, COMPILED) else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="commit")
    parser.add_argument("head", nargs="?", default="HEAD", help="commit")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=341, help="side of a pass, LR pixels")
    parser.add_argument("--passes", type=int, default=3, help="passes in a process, after one that does not count")
    parser.add_argument("--slice", type=int, default=1024, help="side of the slice for infer, LR pixels")
    add_common(parser)
    parser.set_defaults(threads=1)
    arguments = parser.parse_args()
    rerun_with_isa(arguments.isa)
    torch.set_num_threads(arguments.threads)
    base, head = (compare.commit_of(name) or sys.exit(f"no commit {name}") for name in (arguments.base, arguments.head))
    settings = {"base": base[:7], "head": head[:7], "rounds": arguments.rounds}
    with tempfile.TemporaryDirectory() as name:
        sites = installed(base, head, Path(name))
        slice_file = Path(name) / "slice.tif"
        tifffile.imwrite(slice_file, real_slice(arguments.slice))
        measured = compare.interleaved(lambda site: once(site, slice_file, arguments), *sites, arguments.rounds)
    rows = rows_of(*measured)
    facts = machine.describe()
    print(f"{facts['processor']}, {facts['threads']} threads, {facts['kernels']}, load {os.getloadavg()[0]:.1f}\n")
    print(table(rows, settings))
    write_json(arguments.json, "commits_cpu", settings, rows)


if __name__ == "__main__":
    main()

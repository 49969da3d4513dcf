"""Time of a training step on a CPU beside plain PyTorch, as Markdown, and as JSON if asked for.

    python bench/measure/training_cpu.py --model emsr-x3 --rounds 7 --threads 1 [--compile] [--isa avx2] [--json FILE]

One process; every round runs a step of each candidate, in rotated order; a ratio is the median of the rounds' ratios.
Each candidate trains a network of its own, from the same weights, on the same crops of white noise with Adam and the
first term of the loss. Beside seconds there is processor time, which does not count what else the machine does; on
several threads it counts those that wait. The last column is the largest relative difference of a loss from that of
eager in the first five steps.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from emsr_fast import Emsr, _backends, load_model
from emsr_fast.train.config import Loss, Optimiser
from emsr_fast.train.losses import reference_free_loss
from emsr_fast.train.schedule import optimiser_of
from scripts import add_common, rerun_with_isa, write_json

OURS, EAGER, LAST, COMPILED = "ours", "eager", "channels last", "torch.compile"
COMPARED = 5  # first steps whose losses are compared


def stepper(name: str, model: str, crop: int, batch: int) -> Callable[[], float]:
    """Return what runs one step of a candidate and returns its loss."""
    network: Emsr = load_model(model, device="cpu").train()
    if name == LAST:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = optimiser_of(network.parameters(), Optimiser())
    generator = torch.Generator().manual_seed(0)
    y = torch.rand(batch, 1, crop, crop, generator=generator)
    x = torch.rand(batch, 1, network.config.scale * crop, network.config.scale * crop, generator=generator)
    settings, run = Loss(weights=(1.0, 0.0, 0.0)), torch.compile(network) if name == COMPILED else network

    def step() -> float:
        optimiser.zero_grad(set_to_none=True)
        with _backends.use_backend("auto" if name == OURS else "reference"):
            loss = reference_free_loss(run, y, x, torch.zeros_like(y), settings)
            loss.backward()
        optimiser.step()
        return float(loss.detach())

    return step


def measured(steps: dict[str, Callable[[], float]], rounds: int) -> list[dict[str, Any]]:
    """Return a row for each candidate; the first step of each warms it up."""
    names = list(steps)
    seconds, processor, losses = ({name: [] for name in names} for _ in range(3))
    for turn in range(rounds + 1):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            start, busy = time.perf_counter(), time.process_time()
            losses[name].append(steps[name]())
            if turn:
                seconds[name].append(time.perf_counter() - start)
                processor[name].append(time.process_time() - busy)

    def ratio(found: dict[str, list[float]], name: str) -> float:
        return statistics.median(other / ours for other, ours in zip(found[name], found[OURS], strict=True))

    def apart(name: str) -> float:
        pairs = zip(losses[name][:COMPARED], losses[EAGER][:COMPARED], strict=True)
        return max(abs(ours - plain) / plain for ours, plain in pairs)

    return [
        {
            "name": name,
            "seconds": statistics.median(seconds[name]),
            "processor_s": statistics.median(processor[name]),
            "times_ours": ratio(seconds, name),
            "processor_times_ours": ratio(processor, name),
            "loss_apart": apart(name),
        }
        for name in names
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| | seconds | times ours | processor seconds | times ours | losses apart |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['name']} | {row['seconds']:.3f} | {row['times_ours']:.2f} | {row['processor_s']:.3f} "
            f"| {row['processor_times_ours']:.2f} | {row['loss_apart']:.1e} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="emsr-x3-small")
    parser.add_argument("--crop", type=int, default=48, help="LR pixels")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--compile", action="store_true", help="torch.compile, too: it takes minutes")
    add_common(parser)
    arguments = parser.parse_args()
    rerun_with_isa(arguments.isa)
    torch.set_num_threads(arguments.threads)
    names = [OURS, EAGER, LAST, *([COMPILED] if arguments.compile else [])]
    steps = {name: stepper(name, arguments.model, arguments.crop, arguments.batch) for name in names}
    rows = measured(steps, arguments.rounds)
    settings = {name: getattr(arguments, name) for name in ("model", "crop", "batch", "rounds", "threads")}
    print(", ".join(f"{name} {value}" for name, value in settings.items()))
    print("\n" + table(rows))
    write_json(arguments.json, "training_cpu", settings, rows)


if __name__ == "__main__":
    main()

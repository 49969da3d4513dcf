"""What Python takes of the network's time on a CPU: a pass beside its kernel calls alone, as Markdown.

    python bench/measure/python_cpu.py --rounds 101 [--json FILE]

Shipped models, white noise, one process. The kernel calls of a pass are written down and made again one after the
other, on the same memory; both ways take turns, each first every other round. Times are processor time: what runs
beside is not counted.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from emsr_fast import Emsr, _native, load_model
from emsr_fast.bench import machine
from scripts import add_common, rerun_with_isa, write_json

NETWORKS = ("emsr-x3-small", "emsr-x3")


class Kept(TorchFunctionMode):
    """Keeps every tensor that PyTorch makes, so that its memory is not given to another."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: list[Any] = []

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.tensors.append(function(*args, **(kwargs or {})))
        return self.tensors[-1]


class Written:
    """The compiled module, which writes down the calls of its CPU kernels."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.module, name)
        if not name.endswith("_cpu") or name == "conv3x3_pack_cpu":
            return found

        def noted(*arguments: Any) -> None:
            self.calls.append((found, arguments))
            found(*arguments)

        return noted


def kernels_of(model: Emsr, y: torch.Tensor) -> tuple[Callable[[], None], int, list[Any]]:
    """Return what makes the kernel calls of a pass again, how many they are, and what must be kept meanwhile."""
    module = _native._C
    written = Written(module)
    _native._C = written
    try:
        with Kept() as kept:
            out = model(y)
    finally:
        _native._C = module

    def again() -> None:
        for function, arguments in written.calls:
            function(*arguments)

    expected = out.clone()
    out.zero_()
    again()
    if not torch.equal(out, expected):
        raise SystemExit("the kernel calls of a pass gave other pixels than the pass")
    return again, len(written.calls), [out, *kept.tensors]


def measure(model: Emsr, size: int, rounds: int) -> dict[str, Any]:
    """Return the seconds of every round, by way, and the number of kernel calls."""
    y = torch.rand(1, 1, size, size)
    seconds: dict[str, list[float]] = {"pass": [], "kernels": []}
    with torch.inference_mode():
        # packs the weights
        model(y)
        again, calls, kept = kernels_of(model, y)
        ways: dict[str, Callable[[], Any]] = {"pass": lambda: model(y), "kernels": again}
        for turn in range(rounds):
            for way in sorted(ways, reverse=turn % 2 == 1):
                start = time.process_time()
                ways[way]()
                seconds[way].append(time.process_time() - start)
        del kept
    return {"calls": calls, **seconds}


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| network | side, LR px | kernel calls | pass, ms | its kernels alone, ms | pass / kernels |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        whole, kernels = (1e3 * statistics.median(row[way]) for way in ("pass", "kernels"))
        ratio = statistics.median(a / b for a, b in zip(row["pass"], row["kernels"], strict=True))
        lines.append(
            f"| {row['network']} | {row['size']} | {row['calls']} | {whole:.4g} | {kernels:.4g} | {ratio:.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=101)
    parser.add_argument("--sizes", default="64,128,341")
    add_common(parser)
    parser.set_defaults(threads=1)
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
    write_json(arguments.json, "python_cpu", {"rounds": arguments.rounds}, rows)


if __name__ == "__main__":
    main()

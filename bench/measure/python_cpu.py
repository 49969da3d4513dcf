"""What Python takes of the network's time on a CPU: a pass beside its kernel calls alone, as Markdown.

    python bench/measure/python_cpu.py --rounds 101 --threads 2 [--json FILE]

Shipped models, white noise, one process. The kernel calls of a pass are written down and made again one after the
other, on the same memory; a third way is the pass with kernels that do nothing, whose Python finds all in the cache.
The ways take turns, in either order. On one thread, times are processor time:
what runs beside is not counted. On several they are the clock's, since threads that wait also take processor time.
"""

from __future__ import annotations

import argparse
import itertools
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


class Idle:
    """The compiled module, whose CPU kernels do nothing."""

    def __init__(self, module: Any) -> None:
        for name in dir(module):
            kernel = name.endswith("_cpu") and name != "conv3x3_pack_cpu"
            setattr(self, name, (lambda *_: None) if kernel else getattr(module, name))


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


def measure(model: Emsr, size: int, threads: int, rounds: int) -> dict[str, Any]:
    """Return the seconds of every round, by way, and the number of kernel calls."""
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    y = torch.rand(1, 1, size, size)
    seconds: dict[str, list[float]] = {"pass": [], "kernels": [], "python": []}
    module = _native._C
    idle = Idle(module)

    def python_alone() -> None:
        _native._C = idle
        try:
            model(y)
        finally:
            _native._C = module

    with torch.inference_mode():
        # packs the weights
        model(y)
        again, calls, kept = kernels_of(model, y)
        ways: dict[str, Callable[[], Any]] = {"pass": lambda: model(y), "kernels": again, "python": python_alone}
        for turn in range(rounds):
            for way in sorted(ways, reverse=turn % 2 == 1):
                start = clock()
                ways[way]()
                seconds[way].append(clock() - start)
        del kept
    return {"calls": calls, **seconds}


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| network | threads | side, px | calls | pass, ms | kernels, ms | Python, ms | pass / kernels | fastest |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        whole, kernels, python = (1e3 * statistics.median(row[way]) for way in ("pass", "kernels", "python"))
        ratio = statistics.median(a / b for a, b in zip(row["pass"], row["kernels"], strict=True))
        fastest = min(row["pass"]) / min(row["kernels"])
        setting = f"{row['network']} | {row['threads']} | {row['size']} | {row['calls']}"
        lines.append(f"| {setting} | {whole:.4g} | {kernels:.4g} | {python:.2g} | {ratio:.3f} | {fastest:.3f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=101)
    parser.add_argument("--sizes", default="64,128,341")
    add_common(parser)
    arguments = parser.parse_args()
    rerun_with_isa(arguments.isa)
    torch.manual_seed(0)
    rows = []
    sizes = [int(size) for size in arguments.sizes.split(",")]
    for name in NETWORKS:
        model = load_model(name, device="cpu")
        for threads, size in itertools.product(sorted({1, arguments.threads}), sizes):
            setting = {"network": name, "threads": threads, "size": size}
            rows.append({**setting, **measure(model, size, threads, arguments.rounds)})
    facts = machine.describe()
    print(f"{facts['processor']}, {facts['kernels']}, {arguments.rounds} rounds\n")
    print(table(rows))
    write_json(arguments.json, "python_cpu", {"rounds": arguments.rounds}, rows)


if __name__ == "__main__":
    main()

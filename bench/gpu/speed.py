"""Time of operators and of the whole network on a GPU, beside PyTorch; writes bench/results/<device>.json and .md.

    python bench/gpu/speed.py operators
    python bench/gpu/speed.py network
    python bench/gpu/speed.py on_request

Candidates take turns in one process; a figure is the median of the rounds. Single operators are timed as CUDA graphs,
so that launch gaps count for nobody; networks as their users call them. The file is written after each comparison.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emsr_fast import BackendError, Emsr, EmsrConfig, _backends
from emsr_fast.engine import TorchEngine
from emsr_fast.engine.base import Grey
from emsr_fast.engine.in_flight import in_flight
from emsr_fast.engine.tile_pipeline import ieee_float32
from emsr_fast.model.cuda_graphs import GraphedNetwork
from emsr_fast.ops import OPERATORS
from exercise import calls
from timing import Run, captured, compare, milliseconds

RESULTS = Path(__file__).resolve().parents[1] / "results"
OURS = ("cuda", "triton", "cpp")
TILES = 8  # that an engine is given in a row
SIDES = (256, 320, 384, 512, 1024)  # LR pixels of a tile: which one keeps the features in L2


def operators(
    device: torch.device, dtype: torch.dtype, size: tuple[int, int], rounds: int, on_request: bool = False
) -> list[dict[str, Any]]:
    """Return a comparison of every operator: our backends, eager and compiled PyTorch of the same dtype.

    Kernels that "auto" leaves alone take part ``on_request``, where only their operators are compared: a GPU that such
    a kernel stops is lost to the whole process.
    """
    rows: list[dict[str, Any]] = []
    for operator, of, call in calls(size, str(device), dtype, batch=1):
        runs: dict[str, Run] = {}
        declared = OPERATORS[operator]
        asked = declared.on_request
        if on_request and not asked:
            continue
        for backend in OURS:
            if backend in asked and not on_request:
                continue
            fits = backend in declared.backends and (backend == "cpp") == (device.type == "cpu")
            if fits and _backends.why_not_here(backend) is None:
                # a kernel may lack these channels, or this GPU
                with contextlib.suppress(BackendError):
                    runs[backend] = captured(lambda call=call, backend=backend: call(backend), device)
        for name, reference in (
            ("eager", lambda call=call: call("reference")),
            ("compiled", torch.compile(lambda call=call: call("reference")) if device.type == "cuda" else None),
        ):
            try:
                if reference is not None:
                    runs[name] = captured(reference, device)
            except RuntimeError as error:
                # what cannot be captured is timed with its launch gaps
                print(f"{operator} {name}: timed call by call ({str(error).splitlines()[0]})")
                torch.cuda.synchronize()
                runs[name] = reference
        rows.append({"what": operator, "of": of, "size": list(size), "ms": compare(runs, device, rounds)})
        torch.cuda.empty_cache()
    return rows


def network(
    device: torch.device, dtype: torch.dtype, config: EmsrConfig, sides: tuple[int, ...], rounds: int,
    save: Callable[[list[dict[str, Any]]], None],
) -> list[dict[str, Any]]:  # fmt: skip
    """Return comparisons of the whole network, saving after each: our tiles, then beside PyTorch at the largest.

    (a) as published: eager, float32, once as IEEE has it and once with PyTorch's own settings, which convolve in TF32
    where the GPU can; (b) eager in halves, channels last; (c) that, compiled with max-autotune.
    """
    torch.manual_seed(0)
    published = Emsr(config).eval().to(device)
    half = copy.deepcopy(published).to(dtype).to(memory_format=torch.channels_last)
    ours = GraphedNetwork(half)
    rows: list[dict[str, Any]] = []
    for side in sides:
        y = torch.rand(1, 1, side, side, device=device, dtype=dtype)
        rows.append(of_network({"ours": lambda y=y: ours(y)}, device, side, rounds))
        save(rows)
    engine = TorchEngine(published, "fp16" if device.type == "cuda" else "fp32")
    rows.append(tiles_from_and_to_the_host(engine, device, sides[0], rounds))
    save(rows)
    side = sides[-1]
    y = torch.rand(1, 1, side, side, device=device)
    low = y.to(dtype)

    def on_reference(run: Callable[[Tensor], Tensor], y: Tensor) -> Tensor:
        with _backends.use_backend("reference"):
            return run(y)

    def in_ieee_float32() -> Tensor:
        with ieee_float32():
            return on_reference(published, y)

    exact = in_ieee_float32()
    runs: dict[str, Run] = {
        "ours": lambda: ours(low),
        "published, IEEE float32": in_ieee_float32,
        "published, TF32 convolutions": lambda: on_reference(published, y),
        "eager": lambda: on_reference(half, low),
    }
    if device.type == "cpu":
        # which has no TF32
        del runs["published, TF32 convolutions"]

    def add() -> None:
        rows.append(of_network(runs, device, side, rounds))
        differences = {name: (run().float() - exact).abs().max() for name, run in runs.items()}
        rows[-1]["error"] = {name: float(most / exact.abs().max()) for name, most in differences.items()}
        save(rows)

    add()
    if device.type == "cuda":
        # last: it may take longer than there is time
        compiled = torch.compile(half, mode="max-autotune")
        runs["compiled"] = lambda: on_reference(compiled, low)
        add()
    return rows


def network_on_request(
    device: torch.device, dtype: torch.dtype, config: EmsrConfig, side: int, rounds: int
) -> dict[str, Any]:
    """Return a comparison of the network with and without the kernels that "auto" leaves alone, each in its graph."""
    torch.manual_seed(0)
    network = Emsr(config).eval().to(device, dtype).to(memory_format=torch.channels_last)
    ours, asked = GraphedNetwork(network), GraphedNetwork(copy.deepcopy(network))
    y = torch.rand(1, 1, side, side, device=device, dtype=dtype)

    def on_request() -> Tensor:
        with _backends.use_backend("cuda,triton,cpp,reference"):
            return asked(y)

    return of_network({"ours": lambda: ours(y), "ours, CUDA convolutions": on_request}, device, side, rounds)


def of_network(runs: dict[str, Run], device: torch.device, side: int, rounds: int) -> dict[str, Any]:
    found = compare(runs, device, rounds)
    speeds = {name: side * side / 1e3 / ms for name, ms in found.items()}
    return {"what": "network", "of": "", "size": [side, side], "ms": found, "LR Mpx/s": speeds}


def tiles_from_and_to_the_host(engine: TorchEngine, device: torch.device, side: int, rounds: int) -> dict[str, Any]:
    """Return a comparison of the ways that tiles take through an engine, the first as ``infer`` has it; per tile."""
    tiles = np.random.default_rng(0).integers(0, 256, (TILES, 1, 1, side, side), dtype=np.uint8)
    table = np.arange(256, dtype=np.float32) / 255
    grey, floats = Grey(table, 0.0, 255.0), list(table[tiles])

    def in_bytes() -> None:
        list(in_flight(tiles, lambda tile: engine.submit(tile, grey), engine.collect, engine.depth))

    runs: dict[str, Run] = {"ours, 8 bits, in flight": in_bytes} if engine.converts else {}
    runs["ours, float32, in flight"] = lambda: list(engine.stream(floats))
    runs["ours, float32, one by one"] = lambda: [engine.run(tile) for tile in floats]
    found = {name: ms / TILES for name, ms in compare(runs, device, rounds).items()}
    speeds = {name: side * side / 1e3 / ms for name, ms in found.items()}
    return {"what": "engine", "of": "from and to the host", "size": [side, side], "ms": found, "LR Mpx/s": speeds}


def copy_bandwidth(device: torch.device, elements: int = 1 << 28) -> float:
    """Return the bytes a second, read and written, of a copy on the device."""
    source = torch.zeros(elements, device=device, dtype=torch.float16)
    target = torch.empty_like(source)
    return 2 * source.nbytes / (1e-3 * milliseconds(lambda: target.copy_(source), device))


def as_markdown(found: dict[str, Any]) -> str:
    """Return the table of a results file; a ratio says how many times longer a candidate takes than ours."""
    facts = ", ".join(f"{key} {value}" for key, value in found["machine"].items())
    lines = [
        f"{facts}. Error: the largest difference from IEEE float32, in largest pixels.",
        "",
        "| | size | candidate | ms | times ours | LR Mpx/s | error |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in (*found.get("operators", []), *found.get("network", []), *found.get("on_request", [])):
        best = min((ms for name, ms in row["ms"].items() if name in OURS or name.startswith("ours")), default=None)
        for name, ms in row["ms"].items():
            ratio = f"{ms / best:.2f}" if best else ""
            speed = f"{row['LR Mpx/s'][name]:.1f}" if "LR Mpx/s" in row else ""
            size = "x".join(map(str, row["size"]))
            error = f"{row['error'][name]:.1e}" if "error" in row else ""
            lines.append(f"| {row['what']} {row['of']} | {size} | {name} | {ms:.4f} | {ratio} | {speed} | {error} |")
    return "\n".join(lines) + "\n"


def save_section(path: Path, section: str, rows: list[dict[str, Any]], machine: dict[str, str]) -> None:
    """Write a section of a results file, the others kept where they are of the same code, and its table beside it."""
    found = json.loads(path.read_text()) if path.exists() else {}
    if any(found.get("machine", {}).get(fact) != machine.get(fact) for fact in ("device", "torch", "commit")):
        found = {}
    found = {**found, "machine": machine, section: rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")
    path.with_suffix(".md").write_text(as_markdown(found))


def machine_of(device: torch.device) -> dict[str, str]:
    def said(*command: str) -> str:
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True, cwd=RESULTS.parent).stdout
        except (OSError, subprocess.CalledProcessError):
            return "unknown"

    facts = {
        "device": "CPU",
        "torch": torch.__version__,
        "commit": said("git", "describe", "--always", "--dirty").strip(),
    }
    if device.type == "cuda":
        query = ("nvidia-smi", "--query-gpu=driver_version,clocks.sm,clocks.mem", "--format=csv,noheader")
        facts["device"] = torch.cuda.get_device_name(device)
        facts["driver and clocks"] = said(*query).strip().splitlines()[0]
        facts["copy TB/s"] = f"{copy_bandwidth(device) / 1e12:.2f}"
    return facts


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", choices=["operators", "network", "on_request"])
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    device, dtype = torch.device("cuda", 0), torch.float16
    machine = machine_of(device)
    path = RESULTS / f"{machine['device'].replace(' ', '-')}.json"

    def save(rows: list[dict[str, Any]]) -> None:
        save_section(path, arguments.section, rows, machine)

    if arguments.section == "operators":
        save(operators(device, dtype, (1024, 1024), arguments.rounds))
    elif arguments.section == "on_request":
        rows = operators(device, dtype, (1024, 1024), arguments.rounds, on_request=True)
        save(rows)
        save([*rows, network_on_request(device, dtype, EmsrConfig(), SIDES[-1], arguments.rounds)])
    else:
        network(device, dtype, EmsrConfig(), SIDES, arguments.rounds, save)
    print(f"written: {path}")


if __name__ == "__main__":
    main()

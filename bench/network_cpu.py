"""Time of the whole paper's network on a CPU beside other runtimes, as Markdown.

    python bench/network_cpu.py --size 341 --rounds 5 --threads 2

One process; every round runs each candidate once, in rotated order; a ratio is the median of the rounds' ratios, so
that what else the machine does falls on all. Random weights; errors are against the same network in float64, relative
to its largest output. ONNX Runtime and OpenVINO take part where they are installed.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from emsr_fast import Emsr, _dispatch

Run = Callable[[Tensor], Tensor]


def in_torch(model: Emsr, backend: str) -> Run:
    """Return the network in PyTorch, its operators on ``backend``."""

    def run(y: Tensor) -> Tensor:
        with torch.inference_mode(), _dispatch.use_backend(backend):
            return model(y)

    return run


def to_onnx(model: Emsr, y: Tensor, path: Path) -> Path:
    """Write the network, its operators in plain PyTorch, for inputs of the shape of ``y``."""
    with torch.no_grad(), _dispatch.use_backend("reference"):
        torch.onnx.export(model, (y,), path, dynamo=True, input_names=["y"], output_names=["out"], verbose=False)
    return path


def in_onnxruntime(path: Path, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda y: torch.from_numpy(session.run(None, {"y": y.numpy()})[0])


def in_openvino(path: Path, threads: int, **settings: str) -> Run:
    import openvino

    core = openvino.Core()
    properties = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    model = core.compile_model(path, "CPU", {**properties, **settings})
    return lambda y: torch.from_numpy(model([y.numpy()])[0].copy())


def candidates(model: Emsr, y: Tensor, folder: Path, threads: int) -> dict[str, Run]:
    """Return what runs here, by name; the first is ours."""
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    found = {
        "emsr_fast": in_torch(model, "cpp"),
        "torch eager": in_torch(model, "reference"),
        "torch eager, channels last": in_torch(last, "reference"),
    }
    if importlib.util.find_spec("onnxscript") is None:
        return found
    path = to_onnx(model, y, folder / "network.onnx")
    if importlib.util.find_spec("onnxruntime"):
        found["ONNX Runtime"] = in_onnxruntime(path, threads)
    if importlib.util.find_spec("openvino"):
        found["OpenVINO"] = in_openvino(path, threads)
        found["OpenVINO, SNIPPETS_MODE=DISABLE"] = in_openvino(path, threads, SNIPPETS_MODE="DISABLE")
    return found


def measure(runs: dict[str, Run], y: Tensor, rounds: int) -> dict[str, list[float]]:
    """Return seconds of every run, a list per candidate; the order rotates from round to round."""
    names = list(runs)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for round_ in range(rounds):
        for name in names[round_ % len(names) :] + names[: round_ % len(names)]:
            start = time.perf_counter()
            runs[name](y)
            seconds[name].append(time.perf_counter() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=341, help="side of the image, LR pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = Emsr().eval()
    y = torch.rand(1, 1, arguments.size, arguments.size)
    exact = in_torch(copy.deepcopy(model).double(), "reference")(y.double())
    with tempfile.TemporaryDirectory() as folder:
        runs = candidates(model, y, Path(folder), arguments.threads)
        # the first run of each warms it up
        errors = {name: ((run(y) - exact).abs().max() / exact.abs().max()).item() for name, run in runs.items()}
        seconds = measure(runs, y, arguments.rounds)
    kernels = _dispatch.kernels_on(y.device)
    print(f"{arguments.size}x{arguments.size}, {arguments.threads} threads, {kernels}, {arguments.rounds} rounds\n")
    print(
        "| | seconds (least) | emsr_fast is faster by (median of rounds) | error against float64 |\n|---|---|---|---|"
    )
    for name, times in seconds.items():
        ratio = statistics.median(other / ours for other, ours in zip(times, seconds["emsr_fast"], strict=True))
        print(f"| {name} | {min(times):.2f} | {ratio:.2f} | {errors[name]:.1e} |")


if __name__ == "__main__":
    main()

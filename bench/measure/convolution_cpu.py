"""Time of one 3x3 convolution on a CPU beside other runtimes, as Markdown, and as JSON if asked for.

    python bench/measure/convolution_cpu.py --channels 64 --size 340 --threads 1 [--isa avx2] [--json FILE]

97 % of the network are such convolutions. ncnn takes part here, since it cannot run the whole network. Rounds and
ratios are as in network_cpu.py. A result is marked wrong if its error against float64 is above ten times ours, which
tests/ops hold to the rounding of Winograd's transforms. Ours and torch's channels last get the image in the layout that
it has within the network. The other runtimes get NCHW; the time includes what they do to convert it.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import emsr_fast
from emsr_fast.bench import machine, rounds
from emsr_fast.bench.runtimes import RUNTIMES
from scripts import add_common, rerun_with_isa, write_json

OURS, PLAIN = "emsr_fast", "torch eager"


def in_ncnn(weight: Tensor, folder: Path, threads: int) -> rounds.Run:
    """Return the convolution in ncnn, from a network file of one layer."""
    ncnn: Any = importlib.import_module("ncnn")
    outputs = weight.shape[0]
    layer = f"Convolution conv 1 1 y out 0={outputs} 1=3 4=1 5=0 6={weight.numel()}"
    param, model = folder / "conv.param", folder / "conv.bin"
    param.write_text(f"7767517\n2 2\nInput y 0 1 y\n{layer}\n")
    # four bytes of 0 say that plain float32 follows
    model.write_bytes(bytes(4) + weight.numpy().tobytes())
    network = ncnn.Net()
    network.opt.num_threads = threads
    for name in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
        setattr(network.opt, f"use_{name}", False)
    if network.load_param(str(param)) or network.load_model(str(model)):
        raise RuntimeError("ncnn does not read its network")

    def run(y: Tensor) -> Tensor:
        extractor = network.create_extractor()
        extractor.input("y", ncnn.Mat(y[0].numpy()))
        return torch.from_numpy(np.array(extractor.extract("out")[1]))[None]

    return run


def candidates(weight: Tensor, y: Tensor, folder: Path, threads: int) -> dict[str, rounds.Run]:
    """Return what runs here, ours first."""
    layer = torch.nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1, bias=False).eval().requires_grad_(False)
    layer.weight.copy_(weight)
    last = weight.contiguous(memory_format=torch.channels_last)
    found: dict[str, rounds.Run] = {
        OURS: lambda y: emsr_fast.conv3x3(y, weight),
        PLAIN: layer,
        "torch eager, channels last": lambda y: torch.nn.functional.conv2d(y, last, padding=1),
    }
    path = folder / "conv.onnx"
    here = [runtime for runtime in RUNTIMES if not runtime.absent()]
    if here:
        torch.onnx.export(layer, (y,), path, dynamo=True, input_names=["y"], output_names=["out"], verbose=False)
    for runtime in here:
        found |= {name: make(path, threads) for name, make in runtime.ways.items()}
    if importlib.util.find_spec("ncnn"):
        found["ncnn"] = in_ncnn(weight, folder, threads)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--size", type=int, default=340, help="side of the image, pixels")
    parser.add_argument("--rounds", type=int, default=15)
    add_common(parser)
    arguments = parser.parse_args()
    rerun_with_isa(arguments.isa)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    weight = torch.randn(arguments.channels, arguments.channels, 3, 3) / (3 * arguments.channels**0.5)
    y = torch.rand(1, arguments.channels, arguments.size, arguments.size)
    exact = torch.nn.functional.conv2d(y.double(), weight.double(), padding=1)
    # ours and torch's channels last get the layout that they have within the network
    last = y.contiguous(memory_format=torch.channels_last)
    with tempfile.TemporaryDirectory() as folder:
        runs = candidates(weight, y, Path(folder), arguments.threads)
        for name in (OURS, "torch eager, channels last"):
            runs[name] = lambda y, run=runs[name]: run(last)  # type: ignore[misc]
        error = rounds.errors(runs, y, exact)
        seconds = rounds.measure(runs, y, arguments.rounds)
    found = rounds.rows(seconds, error, ours=OURS, plain=OURS)
    facts = machine.describe()
    print(f"{arguments.channels} channels, {arguments.size} px, {facts['threads']} threads, {facts['kernels']}\n")
    print(rounds.table(found))
    settings = {"channels": arguments.channels, "size": arguments.size, "rounds": arguments.rounds}
    write_json(arguments.json, "convolution_cpu", settings, found)


if __name__ == "__main__":
    main()

"""The command that times this machine."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer


def bench(
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    model: Annotated[
        str | None, typer.Option(help="A shipped model's name (see `emsr-fast models`) or a model file.")
    ] = None,
    size: Annotated[int, typer.Option(help="Side of the image in input pixels.")] = 320,
    rounds: Annotated[int, typer.Option(help="Times that everything runs, in rotated order.")] = 5,
    peers: Annotated[
        bool, typer.Option("--peers", help="Also torch channels last, torch.compile, ONNX Runtime, OpenVINO.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on stdout, everything else on stderr.")
    ] = False,
) -> None:
    """Time the network on this machine, and say how near that is to what the machine can do.

    Every result is compared with float64; one that is wrong is marked, not dropped. Other programs on the machine
    spoil seconds, and ratios much less.
    """
    from emsr_fast.bench import job

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    done = job.bench(device=device, model=model, size=size, repeats=rounds, with_peers=peers, say=say)
    print(json.dumps(done) if as_json else job.described(done))

"""The command that times this machine: bench."""

from __future__ import annotations

from typing import Annotated

import typer

from emsr_fast.cli.common import Device, Json, Model, print_json, typed
from emsr_fast.cli.output import put


def bench(
    context: typer.Context,
    device: Device = "auto",
    model: Model = None,
    size: Annotated[int, typer.Option(help="Side of the image, in input pixels.")] = 320,
    rounds: Annotated[int, typer.Option(help="How often everything runs; the order changes each time.")] = 5,
    peers: Annotated[
        bool,
        typer.Option("--peers", help="Also time other runtimes that are installed."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Time the network on this machine.

    Compares the time with what the machine can do. Every result is checked against float64; a wrong one is marked and
    stays in the table. Other programs on the machine change the seconds, and the ratios much less.
    """
    from emsr_fast.bench import job

    done = job.bench(device=device, model=model, size=size, repeats=rounds, with_peers=peers, say=typed(context).say)
    if as_json:
        print_json(done)
    else:
        put(*job.described(done).splitlines())

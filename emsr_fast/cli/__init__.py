"""The command line: arguments, messages and exit codes. The work of each command is a function elsewhere.

Exit codes: 0 done, 2 usage, 3 bad input, output or model, 4 partial, 5 device or backend, 130 Ctrl-C, 143 SIGTERM,
1 a fault of emsr-fast.
Nothing heavy is imported before a command needs it: ``--help`` must answer at once.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from emsr_fast import __version__
from emsr_fast.cli import (
    bench,
    cache,
    doctor,
    evaluate,
    export,
    finetune,
    infer,
    inspect,
    models,
    noise,
    pair,
    preview,
    train,
    verify,
)
from emsr_fast.cli.common import CommandLine
from emsr_fast.cli.exits import run
from emsr_fast.cli.limits import refuse_too_few_threads
from emsr_fast.cli.output import cleaned, put
from emsr_fast.cli.streams import standard_streams

_LIGHT = ("models", "cache")  # commands without NumPy and PyTorch

app = typer.Typer(
    name="emsr-fast",
    help="Super-resolution and denoising of electron microscopy stacks (EMSR).",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line on ``arguments`` (the process's own if None); return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # torch's threads spin while they wait: beside another program on the same cores that costs a factor of 30
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    group = typer.main.get_command(app)
    line = CommandLine(arguments, group)
    with standard_streams(), cleaned():
        return run(
            lambda: group.main(arguments, prog_name="emsr-fast", standalone_mode=False, obj=line),
            as_json="--json" in arguments,
            spell=line.spell,
        )


def _version(asked: bool) -> None:
    if asked:
        put(f"emsr-fast {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        put(*context.get_help().splitlines())
        raise typer.Exit(2)
    if context.invoked_subcommand not in _LIGHT:
        refuse_too_few_threads()


app.command()(infer.infer)
app.command()(verify.verify)
app.command()(inspect.inspect)
app.command()(models.models)
app.command()(doctor.doctor)
app.command()(preview.preview)
app.command()(finetune.finetune)
# settings of the configuration are options of their own: the configuration knows them
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(train.train)
app.command()(noise.noise)
app.command()(pair.pair)
app.command()(evaluate.evaluate)
app.command()(export.export)
app.add_typer(cache.app, name="cache")
app.command()(bench.bench)

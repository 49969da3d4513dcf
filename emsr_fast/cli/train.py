"""The command that trains a network: train."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from emsr_fast.cli.common import Option, typed
from emsr_fast.cli.output import put
from emsr_fast.errors import UsageError, VolumeError
from emsr_fast.wording import counted, shell


def train(
    context: typer.Context,
    config: Annotated[
        Path,
        typer.Argument(
            metavar="[CONFIG.yaml]", help="Settings of the run; --init writes an example. Default: train.yaml."
        ),
    ] = Path("train.yaml"),
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the output folder.")] = False,
    init: Annotated[
        bool, typer.Option("--init", help="Write CONFIG.yaml with every setting explained, and stop.")
    ] = False,
) -> int:
    """Train a network without clean references.

    Any setting can be given as --group.key=value, such as --optimiser.rate=2e-4. After Ctrl-C, --resume continues the
    run. Several GPUs: torchrun --nproc-per-node N -m emsr_fast train CONFIG.yaml
    """
    changes = changes_of(context.args)
    if init:
        _write_template(config)
        return 0
    if not config.exists():
        example = shell("emsr-fast", "train", config, "--init")
        raise VolumeError(f"{config} does not exist; write an example: {example}")
    from emsr_fast.train import read_config
    from emsr_fast.train import train as run
    from emsr_fast.train.config import TrainConfig

    line = typed(context)
    line.options |= {name: Option(f"--{name}", takes_value=True) for name in TrainConfig.model_fields}
    outcome = run(read_config(config, changes), resume=resume, say=line.say)
    if outcome.stopped_by is not None:
        line.say(f"stopped after step {outcome.steps}; continue with: {line.again(resume=True)}")
        return 128 + outcome.stopped_by
    line.say(f"done    {counted(outcome.steps, 'step')} in {outcome.seconds / 60:.1f} min")
    put(str(outcome.model))
    return 0


def changes_of(arguments: Sequence[str]) -> list[str]:
    """Return "key=value" for each --key=value or --key value.

    Raises:
        UsageError: anything else.
    """
    changes, waiting = [], None
    for argument in arguments:
        if waiting is not None:
            changes.append(f"{waiting}={argument}")
            waiting = None
        elif argument.startswith("--") and len(argument) > 2:
            key, sign, value = argument[2:].partition("=")
            if sign:
                changes.append(f"{key}={value}")
            else:
                waiting = key
        else:
            raise UsageError(f"argument {argument!r} is not a setting; give --key=value, as in --optimiser.rate=2e-4")
    if waiting is not None:
        raise UsageError(f"option --{waiting} has no value; give --{waiting}=VALUE")
    return changes


def _write_template(path: Path) -> None:
    from emsr_fast.publish import write_file
    from emsr_fast.train.template import template

    def check_free(final: Path) -> None:
        if final.exists():
            raise VolumeError(f"{path} exists; choose another name")

    write_file(path.resolve(), template().encode(), check_free)
    put(str(path))

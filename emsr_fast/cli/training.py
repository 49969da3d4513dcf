"""The commands around training: finetune, train, noise."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from emsr_fast.errors import PartialError, UsageError, VolumeError
from emsr_fast.installing import install_line

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, everything else on stderr.")]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def finetune(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The model to be, NAME.safetensors; its picture is NAME.finetune.png.")
    ],
    images: Annotated[
        list[Path] | None, typer.Argument(metavar="[IMAGES]", help="HR images, folders or volumes of your microscope.")
    ] = None,
    hr: Annotated[
        Path | None, typer.Option("--hr", help="Instead of IMAGES, with --lr: acquired HR, as many images as LR.")
    ] = None,
    lr: Annotated[Path | None, typer.Option("--lr", help="Acquired LR of the same fields, sorted alike.")] = None,
    pairs: Annotated[
        Path | None,
        typer.Option("--pairs", help="Instead of IMAGES: a table with the columns lr and hr, as pair writes it."),
    ] = None,
    minutes: Annotated[float, typer.Option(help="How long to train.")] = 3.0,
    steps: Annotated[int | None, typer.Option(min=1, help="How many steps to train at most.")] = None,
    model: Annotated[
        str | None, typer.Option(help="What to start from: a shipped model's name or a model file.")
    ] = None,
    grey_range: Annotated[
        str | None,
        typer.Option("--range", metavar="LO:HI|dtype", help="Grey values that become 0 and 1, as in infer."),
    ] = None,
    pixel_nm: Annotated[
        float | None, typer.Option(help="HR pixel size, where the images state none or a wrong one.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing model and picture, at the very end.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Make a shipped model better on your own images, in minutes.

    Trains on IMAGES, of which LR is made, and holds one slice in ten back. The model is written only if it is better
    there than the one it started from; if not, nothing is written and the exit code is 4. Ctrl-C ends the training
    early; what was learnt until then is judged alike.
    """
    from emsr_fast.model.zoo import DEFAULT_MODEL

    try:
        from emsr_fast.train.finetune import finetune as run
    except ImportError as error:
        raise UsageError(f"training needs more packages: {install_line('train')}") from error

    done = run(
        images or (),
        output=output,
        hr=hr,
        lr=lr,
        pairs=pairs,
        minutes=minutes,
        steps=steps,
        model=model or DEFAULT_MODEL,
        grey_range=grey_range,
        pixel_nm=pixel_nm,
        device=device,
        overwrite=overwrite,
        say=_say,
    )
    if as_json:
        print(json.dumps(done))
    elif done["kept"]:
        print(done["output"])
    if done["stopped_by"]:
        return 128 + int(done["stopped_by"])
    return 0 if done["kept"] else PartialError.exit_code


def train(
    context: typer.Context,
    config: Annotated[
        Path, typer.Argument(metavar="[CONFIG.yaml]", help="The run's settings; see --init. Default: train.yaml.")
    ] = Path("train.yaml"),
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the output folder.")] = False,
    init: Annotated[
        bool, typer.Option("--init", help="Write CONFIG.yaml with every setting explained, and leave.")
    ] = False,
) -> int:
    """Train a network without clean references.

    Any setting can be given as --group.key=value, such as --optimiser.rate=2e-4. Ctrl-C leaves a state to --resume.
    Several GPUs: torchrun --nproc-per-node N -m emsr_fast train CONFIG.yaml
    """
    changes = changes_of(context.args)
    if init:
        _write_template(config)
        return 0
    from emsr_fast.train import read_config
    from emsr_fast.train import train as run

    outcome = run(read_config(config, changes), resume=resume, say=_say)
    if outcome.stopped_by is not None:
        again = " ".join(shlex.quote(part) for part in (str(config), *context.args))
        _say(f"stopped after step {outcome.steps}; continue with: emsr-fast train {again} --resume")
        return 128 + outcome.stopped_by
    _say(f"done    {outcome.steps} steps in {outcome.seconds / 60:.1f} min")
    print(outcome.model)
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
            raise UsageError(f"argument {argument!r} is no setting; give --key=value, as in --optimiser.rate=2e-4")
    if waiting is not None:
        raise UsageError(f"option --{waiting} has no value; give --{waiting}=VALUE")
    return changes


def _write_template(path: Path) -> None:
    from importlib import resources

    text = (resources.files("emsr_fast.train") / "template.yaml").read_text()
    try:
        with path.open("x") as file:
            file.write(text)
    except FileExistsError as error:
        raise VolumeError(f"{path} exists; give another name") from error
    print(path)


def noise(
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGES", help="Images, folders or volumes of one microscope.")
    ],
    as_json: Json = False,
) -> None:
    """Measure the noise of images, and print it as settings for training.

    Fits variance = gain * intensity + offset to the flattest parts. Noise that is correlated between pixels, as after
    resampling, is underestimated. Where structure as small as a pixel is everywhere, it says that it cannot tell.
    """
    try:
        from emsr_fast.train.noise import measure_noise
    except ImportError as error:
        raise UsageError(f"measuring noise needs the extra packages: {install_line('train')}") from error

    found = measure_noise(images)
    if as_json:
        print(json.dumps(vars(found)))
        return
    _say(f"noise   {found.sigma:.2f} grey levels of 255 at the mean intensity, from {found.points:,} blocks")
    print(
        f"noise: {{kind: poisson_gaussian, gain: [{found.gain:.4g}, {found.gain:.4g}], "
        f"offset: [{found.offset:.4g}, {found.offset:.4g}]}}"
    )

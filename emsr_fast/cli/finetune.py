"""The command that adapts a model to one's own images: finetune."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emsr_fast.cli.common import Device, Json, Model, Overwrite, Range, print_json, typed
from emsr_fast.cli.output import put
from emsr_fast.errors import PartialError, UsageError
from emsr_fast.installing import lacking
from emsr_fast.wording import shell


def finetune(
    context: typer.Context,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Model to write, NAME.safetensors. Its picture is NAME.finetune.png.")
    ],
    images: Annotated[
        list[Path] | None, typer.Argument(metavar="[IMAGES]", help="HR images, folders or volumes of your microscope.")
    ] = None,
    hr: Annotated[
        Path | None, typer.Option("--hr", help="Acquired HR, with --lr and without IMAGES; as many images as LR.")
    ] = None,
    lr: Annotated[Path | None, typer.Option("--lr", help="Acquired LR of the same fields, in the same order.")] = None,
    pairs: Annotated[
        Path | None,
        typer.Option("--pairs", help="Table with the columns lr and hr, as pair writes it; without IMAGES."),
    ] = None,
    minutes: Annotated[float, typer.Option(help="Longest time to train, in minutes.")] = 3.0,
    steps: Annotated[int | None, typer.Option(min=1, help="Largest number of steps to train.")] = None,
    model: Model = None,
    intensity_range: Range = None,
    pixel_nm: Annotated[
        float | None, typer.Option(help="Pixel size of HR in nm, for images that state none or a wrong one.")
    ] = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> int:
    """Make a shipped model better on your own images, in minutes.

    Trains on IMAGES and on LR made from them, and holds one slice in ten back. Writes the model only if it is better
    on those slices than the one it started from; if not, the exit code is 4. Ctrl-C ends the training early; what was
    learnt until then is judged in the same way.
    """
    from emsr_fast.model.zoo import DEFAULT_MODEL

    try:
        from emsr_fast.train.finetune import finetune as run
    except ImportError as error:
        raise UsageError(lacking("training", "train")) from error

    line = typed(context)
    done = run(
        images or (),
        output=output,
        hr=hr,
        lr=lr,
        pairs=pairs,
        minutes=minutes,
        steps=steps,
        model=model or DEFAULT_MODEL,
        intensity_range=intensity_range,
        pixel_nm=pixel_nm,
        device=device,
        overwrite=overwrite,
        say=line.say,
    )
    if done["kept"]:
        use = ["emsr-fast", "infer", "STACK.tif" if lr is None else str(lr), "-o", "OUT.ome.zarr"]
        line.say(f"use     {shell(*use, '--model', done['output'])}")
    if as_json:
        print_json(done)
    elif done["kept"]:
        put(str(done["output"]))
    if done["stopped_by"]:
        return 128 + int(done["stopped_by"])
    return 0 if done["kept"] else PartialError.exit_code

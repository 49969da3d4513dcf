"""The command that measures noise: noise."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emsr_fast.cli.common import Json, print_json, typed
from emsr_fast.cli.output import put
from emsr_fast.errors import UsageError
from emsr_fast.installing import lacking


def noise(
    context: typer.Context,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGES", help="Images, folders or volumes from one microscope.")
    ],
    as_json: Json = False,
) -> None:
    """Measure the noise of images.

    Prints it as settings for training. Fits variance = gain * intensity + offset to the flattest parts of the images.
    Noise that is correlated between pixels, as after resampling, is underestimated. If structure as small as a pixel
    fills the images, noise cannot be told from it, and the command says so.
    """
    try:
        from emsr_fast.train.noise import measure_noise
    except ImportError as error:
        raise UsageError(lacking("measuring noise", "train")) from error

    found = measure_noise(images)
    if as_json:
        print_json(vars(found))
        return
    typed(context).say(
        f"noise   {found.sigma:.2f} grey levels of 255 at the mean intensity, from {found.points:,} blocks"
    )
    typed(context).say("        for train.yaml, under degradation:")
    put(
        f"noise: {{kind: poisson_gaussian, gain: [{found.gain:.4g}, {found.gain:.4g}], "
        f"offset: [{found.offset:.4g}, {found.offset:.4g}]}}"
    )

"""The command that makes training pairs: pair."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from emsr_fast.cli.common import Channel, Json, KeepDataBar, Overwrite, print_json, typed
from emsr_fast.cli.output import put
from emsr_fast.errors import UsageError
from emsr_fast.installing import lacking
from emsr_fast.wording import counted


def pair(
    context: typer.Context,
    lr: Annotated[
        Path, typer.Argument(metavar="LR", help="Large field at low resolution, in any format that infer reads.")
    ],
    hr: Annotated[Path, typer.Argument(metavar="HR", help="Small field at high resolution, inside the large one.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write. It appears once it is complete.")],
    scale: Annotated[int, typer.Option(help="Scale factor of the pairs: 2, 3 or 4.")] = 3,
    lr_voxel: Annotated[
        str | None,
        typer.Option(
            metavar="Z,Y,X", help="Voxel size of LR in nm, or one number for the pixel size. Default: the file's."
        ),
    ] = None,
    hr_voxel: Annotated[str | None, typer.Option(metavar="Z,Y,X", help="Voxel size of HR, given alike.")] = None,
    max_angle: Annotated[float, typer.Option(help="Largest rotation between the fields, in degrees.")] = 5.0,
    max_magnification: Annotated[
        float, typer.Option(help="Largest error of the voxel sizes' ratio, in per cent.")
    ] = 5.0,
    min_ncc: Annotated[
        float, typer.Option(help="Least normalised cross-correlation of a slice or region that is kept.")
    ] = 0.6,
    bspline: Annotated[
        float | None,
        typer.Option(
            metavar="SPACING",
            help="Deform every slice by B-splines, with control points SPACING LR pixels apart (16 or more). "
            "This can make images agree that do not; see docs/pairs.md. Default: affine maps only.",
        ),
    ] = None,
    z_offset: Annotated[
        int | None,
        typer.Option(help="LR slice that shows HR slice 0; it may be negative. Default: it is searched for."),
    ] = None,
    slices: Annotated[
        str, typer.Option(metavar="A:B", help="HR slices from A up to, not including, B, counted from 0.")
    ] = ":",
    kind: Annotated[
        str, typer.Option("--format", help="tif for two folders with one file for each slice, zarr for two stacks.")
    ] = "tif",
    channel: Channel = None,
    keep_data_bar: KeepDataBar = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Make training pairs.

    Finds the small HR field inside the large LR one. Writes LR and HR images of the same field whose pixel sizes
    differ by exactly the scale factor, pairs.csv, preview.png, and train.yaml to train with. Leaves out slices and
    regions that do not fit.
    """
    if importlib.util.find_spec("skimage") is None:
        raise UsageError(lacking("making pairs", "train"))
    from emsr_fast.cli.progress import progress
    from emsr_fast.pair import job

    line = typed(context)
    done = job.pair(
        lr,
        hr,
        output,
        scale=scale,
        lr_voxel=lr_voxel,
        hr_voxel=hr_voxel,
        max_angle=max_angle,
        max_magnification=max_magnification,
        min_ncc=min_ncc,
        bspline=bspline,
        z_offset=z_offset,
        slices=slices,
        kind=kind,
        channel=channel,
        keep_data_bar=keep_data_bar,
        overwrite=overwrite,
        say=line.say,
        progress=progress,
    )
    if as_json:
        print_json(done)
        return
    deformed = f"{done['deformed']} of them deformed, " if bspline is not None else ""
    line.say(
        f"done    {counted(done['pairs'], 'pair')}, {deformed}{done['rejected']} rejected, NCC {done['ncc']:.3f}, "
        f"residual {done['residual_px']:.3f} px (medians); train with: {done['train']}"
    )
    put(str(done["output"]))

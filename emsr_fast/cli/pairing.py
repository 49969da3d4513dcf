"""The command that makes training pairs."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from emsr_fast.errors import UsageError
from emsr_fast.installing import install_line


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def pair(
    lr: Annotated[Path, typer.Argument(metavar="LR", help="The large field at low resolution; anything infer reads.")],
    hr: Annotated[Path, typer.Argument(metavar="HR", help="The small field at high resolution, inside it.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to be. Appears when complete.")],
    scale: Annotated[int, typer.Option(help="HR pixels per LR pixel of the pairs: 2, 3 or 4.")] = 3,
    lr_voxel: Annotated[
        str | None, typer.Option(metavar="Z,Y,X", help="LR voxel size in nm, or the pixel size. Default: the file's.")
    ] = None,
    hr_voxel: Annotated[str | None, typer.Option(metavar="Z,Y,X", help="The same of HR.")] = None,
    max_angle: Annotated[float, typer.Option(help="Degrees that the fields may be turned to each other.")] = 5.0,
    max_magnification: Annotated[
        float, typer.Option(help="Per cent by which the pixel ratio may differ from that of the voxel sizes.")
    ] = 5.0,
    min_ncc: Annotated[
        float, typer.Option(help="Normalised cross-correlation that slices and regions must reach.")
    ] = 0.6,
    bspline: Annotated[
        float | None,
        typer.Option(
            metavar="SPACING",
            help="Deform every slice by B-splines with control points SPACING LR pixels apart (16 or more, e.g. 32). "
            "Can invent agreement; see docs/pairs.md. Default: affine maps only.",
        ),
    ] = None,
    z_offset: Annotated[
        int | None, typer.Option(help="LR slice of HR slice 0, if known; may be negative. Default: searched for.")
    ] = None,
    slices: Annotated[str, typer.Option(help="a:b, HR slices from a to before b, counted from 0.")] = ":",
    kind: Annotated[
        str, typer.Option("--format", help="tif: two folders, a file a slice; zarr: two stacks of one shape.")
    ] = "tif",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing pair set, at the very end.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on stdout, everything else on stderr.")
    ] = False,
) -> None:
    """Make training pairs: find the small HR field inside the large LR one.

    Writes LR and HR images that show the same field at exactly SCALE pixels to one, pairs.csv, preview.png and a
    train.yaml to train with. Slices and regions that do not fit are left out.
    """
    if importlib.util.find_spec("skimage") is None:
        raise UsageError(f"making pairs needs the extra packages: {install_line('train')}")
    from emsr_fast.cli.progress import progress
    from emsr_fast.pair import job

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
        overwrite=overwrite,
        say=_say,
        progress=progress,
    )
    if as_json:
        print(json.dumps(done))
        return
    deformed = f"{done['deformed']} of them deformed, " if bspline is not None else ""
    _say(
        f"done    {done['pairs']} pairs, {deformed}{done['rejected']} rejected, NCC {done['ncc']:.3f}, "
        f"residual {done['residual_px']:.3f} px (medians); train with: {done['train']}"
    )
    print(done["output"])

"""The command that shows one place of a stack: preview."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emsr_fast.cli.common import (
    Axes,
    Channel,
    Device,
    InputVoxel,
    Json,
    KeepDataBar,
    Key,
    Model,
    Overwrite,
    Range,
    Raw,
    key_of,
    print_done,
    typed,
)


def preview(
    context: typer.Context,
    input_path: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="Stack in any format that inspect reads. file.h5:/key names one of several images."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="PNG to write. Default: NAME_sliceN.png in this folder, or the next name that is free.",
        ),
    ] = None,
    slice_number: Annotated[
        int | None, typer.Option("--slice", metavar="N", help="Slice to show, counted from 0. Default: the middle one.")
    ] = None,
    roi: Annotated[
        str | None,
        typer.Option(
            metavar="Z,Y,X:Z,Y,X",
            help="Region of one slice in input voxels, from the first corner up to, not including, the second. "
            "Default: the middle of the slice, up to 256 pixels wide and high.",
        ),
    ] = None,
    key: Key = None,
    raw: Raw = None,
    axes: Axes = None,
    channel: Channel = None,
    keep_data_bar: KeepDataBar = False,
    input_voxel: InputVoxel = None,
    model: Model = None,
    intensity_range: Range = None,
    device: Device = "auto",
    no_trust: Annotated[
        bool, typer.Option("--no-trust", help="Leave out the map of trust, to be done in a ninth of the time.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Show one place of a stack in seconds.

    Writes a PNG with LR, bicubic interpolation, SR and trust side by side, and prints its path. SR has the pixels that
    infer writes there with --roi.
    """
    from emsr_fast.cli.progress import progress
    from emsr_fast.preview.file import write_preview

    done = write_preview(
        input_path,
        output,
        overwrite=overwrite,
        slice_number=slice_number,
        roi=roi,
        key=key_of(key, raw),
        axes=axes,
        channel=channel,
        keep_data_bar=keep_data_bar,
        input_voxel=input_voxel,
        model=model,
        intensity_range=intensity_range,
        device=device,
        with_trust=not no_trust,
        say=typed(context).say,
        progress=progress,
    )
    print_done(done, as_json=as_json)

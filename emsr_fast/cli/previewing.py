"""The command that shows one place before the whole is computed: preview."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer


def preview(
    input_path: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A stack of any format inspect reads; file.h5:/key names one of several images."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The PNG. Default: NAME_sliceN.png here, or the next name that is free."),
    ] = None,
    slice_number: Annotated[
        int | None, typer.Option("--slice", metavar="N", help="Which slice, counted from 0. Default: the middle one.")
    ] = None,
    roi: Annotated[
        str | None,
        typer.Option(
            metavar="Z,Y,X:Z,Y,X",
            help="Input voxels from the first corner to before the second, one slice. "
            "Default: the middle of the slice, up to 256 px a side.",
        ),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Which image of a file with several: dataset, variable, level or series number.")
    ] = None,
    axes: Annotated[str | None, typer.Option(help="What the stored axes are, slowest first, such as ZYX.")] = None,
    input_voxel: Annotated[
        str | None, typer.Option(metavar="NM|Y,X|file|ignore", help="The input's pixel size, as for infer.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A shipped model's name (see `emsr-fast models`) or a model file.")
    ] = None,
    grey_range: Annotated[
        str | None,
        typer.Option("--range", metavar="LO:HI|dtype", help="Grey values that become 0 and 1, as for infer."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    no_trust: Annotated[
        bool, typer.Option("--no-trust", help="Leave the map of trust out: a ninth of the time.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing picture.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on stdout, everything else on stderr.")
    ] = False,
) -> None:
    """Show one place of a stack in seconds: LR, bicubic, SR and trust side by side in a PNG.

    SR has the pixels that infer writes there with --roi. Prints the picture's path.
    """
    from emsr_fast.cli.progress import progress
    from emsr_fast.preview.file import write_preview

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    done = write_preview(
        input_path,
        output,
        overwrite=overwrite,
        slice_number=slice_number,
        roi=roi,
        key=key,
        axes=axes,
        input_voxel=input_voxel,
        model=model,
        grey_range=grey_range,
        device=device,
        with_trust=not no_trust,
        say=say,
        progress=progress,
    )
    print(json.dumps(done) if as_json else done["output"])

"""The main command: infer."""

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
    Precision,
    Provider,
    Range,
    Raw,
    WindowFit,
    key_of,
    print_json,
    typed,
)
from emsr_fast.cli.output import put
from emsr_fast.errors import PartialError, UsageError
from emsr_fast.wording import counted


def infer(
    context: typer.Context,
    input_path: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT", help="Stack in any format that inspect reads. file.h5:/key names one of several images."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="File to write: .ome.zarr, .zarr, .ome.tif, .tif, .h5 or .mrc."),
    ],
    key: Key = None,
    raw: Raw = None,
    axes: Axes = None,
    channel: Channel = None,
    keep_data_bar: KeepDataBar = False,
    input_voxel: InputVoxel = None,
    model: Model = None,
    window_fit: WindowFit = None,
    device: Device = "auto",
    engine: Annotated[str, typer.Option(help="What runs the network: torch, onnx or trt.")] = "torch",
    trt: Annotated[bool, typer.Option("--trt", help="Short for --engine trt.")] = False,
    precision: Precision = None,
    provider: Provider = "auto",
    no_truth_test: Annotated[
        bool, typer.Option("--no-truth-test", help="Run an engine without comparing it with PyTorch first.")
    ] = False,
    tile: Annotated[
        int | None,
        typer.Option(
            help="Side of a tile in input pixels, a multiple of 4. Default: the largest that fits the memory."
        ),
    ] = None,
    halo: Annotated[
        int, typer.Option(help="Width of the halo, in input pixels read around each tile; a multiple of 4.")
    ] = 32,
    slices: Annotated[
        str, typer.Option(metavar="A:B", help="Slices from A up to, not including, B, counted from 0.")
    ] = ":",
    roi: Annotated[
        str | None,
        typer.Option(
            metavar="Z,Y,X:Z,Y,X",
            help="Region of interest in input voxels, from the first corner up to, not including, the second.",
        ),
    ] = None,
    intensity_range: Range = None,
    max_memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Memory to use beyond the loaded model, such as 4GB. Default: 1.5GB."),
    ] = None,
    ome_zarr: Annotated[
        str,
        typer.Option("--ome-zarr", help="Version of OME-Zarr: 0.5 (Zarr v3 with shards), or 0.4 for older readers."),
    ] = "0.5",
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", help="Also write maps of the error to expect. Takes about 9 times as long; see docs/trust.md."
        ),
    ] = False,
    dask: Annotated[
        str | None,
        typer.Option(metavar="local:N|tcp://HOST:PORT|FILE", help="Compute the blocks on workers of dask.distributed."),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Compute the I-th of N shares of the blocks, counted from 1; for array jobs."),
    ] = None,
    finish: Annotated[
        bool,
        typer.Option("--finish", help="Only complete OUTPUT.partial. Slices that failed are 0, and are listed in it."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print blocks, bytes, memory and time; write nothing.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> int:
    """Super-resolve a stack in y and x, slice by slice.

    The output is larger by the model's scale factor. It keeps dtype and grey values, and has the voxel size to match.
    A run that is stopped leaves OUTPUT.partial; the same command continues it.
    """
    from emsr_fast.cli.progress import progress
    from emsr_fast.infer.job import carry_out
    from emsr_fast.infer.request import Request

    if trt and engine not in ("torch", "trt"):
        raise UsageError(f"--trt and --engine {engine} are given together; give one of them")
    line = typed(context)

    def retry(**changes: str | None) -> str:
        # --trt is an engine too
        return line.again(**({"trt": None} if "engine" in changes else {}), **changes)

    request = Request(
        input_path,
        output,
        key=key_of(key, raw),
        axes=axes,
        channel=channel,
        keep_data_bar=keep_data_bar,
        input_voxel=input_voxel,
        model=model,
        window_fit=window_fit,
        device=device,
        engine="trt" if trt else engine,
        precision=precision,
        provider=provider,
        truth_test=not no_truth_test,
        tile=tile,
        halo=halo,
        slices=slices,
        roi=roi,
        intensity_range=intensity_range,
        max_memory=max_memory,
        ome_zarr=ome_zarr,
        trust=trust,
        dask=dask,
        shard=shard,
        finish=finish,
        dry_run=dry_run,
        overwrite=overwrite,
        retry=retry,
    )
    done = carry_out(request, line.say, progress)
    if as_json:
        print_json(done)
    elif not dry_run:
        line.say(
            f"done    {counted(done['blocks'], 'block')} in {done['seconds']:.1f} s, "
            f"{done['lr_mpx_per_s']:.3f} LR Mpx/s, "
            f"{100 * done['network_fraction']:.1f} % of the time was the network's, "
            f"{100 * done['clipped_fraction']:.3g} % of pixels clipped"
        )
        if done["complete"]:
            put(str(done["output"]))
    return PartialError.exit_code if done.get("failed_slices") else 0

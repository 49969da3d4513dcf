"""The command line: arguments in, messages and exit codes out; each command's work is a function elsewhere.

Exit codes: 0 done, 2 usage, 3 bad input, output or model, 4 partial, 5 device or backend, 130 Ctrl-C, 143 SIGTERM,
1 our fault.
Nothing heavy is imported before a command needs it: ``--help`` must answer at once.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from emsr_fast import __version__
from emsr_fast.cli import deployment, evaluation, measuring, pairing, previewing, training
from emsr_fast.cli.exits import run
from emsr_fast.errors import PartialError, UsageError

app = typer.Typer(
    name="emsr-fast",
    help="Super-resolution and denoising of electron microscopy stacks (EMSR).",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, everything else on stderr.")]

Key = Annotated[
    str | None, typer.Option(help="Which image of a file with several: dataset, variable, level or series number.")
]
Axes = Annotated[str | None, typer.Option(help="What the stored axes are, slowest first, such as ZYX or CZYX.")]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line on ``arguments`` (the process's own if None); return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # torch's threads spin while they wait: beside another program on the same cores that costs a factor of 30
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    command = typer.main.get_command(app)
    typed = shlex.join(["emsr-fast", *arguments])
    return run(
        lambda: command.main(arguments, prog_name="emsr-fast", standalone_mode=False, obj=typed),
        as_json="--json" in arguments,
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _print_json(values: dict[str, Any]) -> None:
    print(json.dumps(values, default=str))


def _version(asked: bool) -> None:
    if asked:
        print(f"emsr-fast {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


@app.command()
def infer(
    context: typer.Context,
    input_path: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT", help="A stack of any format inspect reads; file.h5:/key names one of several images."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Where to: .ome.zarr, .zarr, .ome.tif, .tif, .h5 or .mrc."),
    ],
    key: Key = None,
    axes: Axes = None,
    input_voxel: Annotated[
        str | None,
        typer.Option(
            metavar="NM|Y,X|file|ignore",
            help="The input's pixel size (file: as it states itself), to resample from to what the model was trained "
            "on, which discards detail where that is coarser. Default: as it is, refused when the two differ by more "
            "than 15 %; ignore runs it all the same.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A shipped model's name (see `emsr-fast models`) or a model file.")
    ] = None,
    window_fit: Annotated[
        str | None, typer.Option(help="pad or resize, for sides that are no multiple of 4. Default: the model's own.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    engine: Annotated[str, typer.Option(help="torch, onnx or trt: who runs the network.")] = "torch",
    trt: Annotated[bool, typer.Option("--trt", help="Short for --engine trt.")] = False,
    precision: Annotated[
        str | None,
        typer.Option(help="fp32 (IEEE, no TF32); on a CUDA device also fp16, bf16. Default: fp32; fp16 for trt."),
    ] = None,
    provider: Annotated[str, typer.Option(help="Of TensorRT: auto, tensorrt or tensorrt-rtx.")] = "auto",
    no_truth_test: Annotated[
        bool, typer.Option("--no-truth-test", help="Do not ask an engine to agree with PyTorch first.")
    ] = False,
    tile: Annotated[
        int | None, typer.Option(help="Side of a tile in input pixels, a multiple of 4. Default: what fits the memory.")
    ] = None,
    halo: Annotated[int, typer.Option(help="Input pixels read around a tile, a multiple of 4.")] = 32,
    slices: Annotated[str, typer.Option(help="a:b, slices from a to before b, counted from 0.")] = ":",
    roi: Annotated[
        str | None,
        typer.Option(metavar="Z,Y,X:Z,Y,X", help="Input voxels from the first corner to before the second."),
    ] = None,
    grey_range: Annotated[
        str | None,
        typer.Option(
            "--range",
            metavar="LO:HI|dtype",
            help="Grey values that become 0 and 1. Default: the dtype's range for 8 bits, "
            "else the 0.1 and 99.9 percentiles of 16 slices across the volume.",
        ),
    ] = None,
    max_memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Above the loaded model, such as 4GB. Default: 1.5GB.")
    ] = None,
    ome_zarr: Annotated[
        str, typer.Option("--ome-zarr", help="0.5 (Zarr v3 with shards), or 0.4 (Zarr v2) for older readers.")
    ] = "0.5",
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", help="Write maps of the error to expect too; about 9 times the time. See docs/trust.md."
        ),
    ] = False,
    dask: Annotated[
        str | None,
        typer.Option(metavar="local:N|tcp://HOST:PORT|FILE", help="Do the blocks on workers of dask.distributed."),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Do the I-th of N shares of the blocks, I from 1; for array jobs."),
    ] = None,
    finish: Annotated[
        bool, typer.Option("--finish", help="Only complete OUTPUT.partial; slices that failed stay 0, and are listed.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print blocks, bytes, memory and time, and write nothing.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing output, at the very end.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Super-resolve a stack in y and x, slice by slice.

    The output is larger by the model's scale; dtype and grey values are kept, the voxel size is carried over.
    A run that was stopped leaves OUTPUT.partial, and goes on when the same command is given again.
    """
    from emsr_fast.cli.progress import progress
    from emsr_fast.infer import job

    if trt and engine not in ("torch", "trt"):
        raise UsageError(f"--trt and --engine {engine} are given together; give one of them")
    done = job.infer(
        input_path,
        output,
        key=key,
        axes=axes,
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
        grey_range=grey_range,
        max_memory=max_memory,
        ome_zarr=ome_zarr,
        trust=trust,
        dask=dask,
        shard=shard,
        finish=finish,
        dry_run=dry_run,
        overwrite=overwrite,
        retry=context.obj,
        say=_say,
        progress=progress,
    )
    if as_json:
        _print_json(done)
    elif not dry_run:
        _say(
            f"done    {done['blocks']} blocks in {done['seconds']:.1f} s, {done['lr_mpx_per_s']:.3f} LR Mpx/s, "
            f"{100 * done['network_fraction']:.1f} % of it in the network, "
            f"{100 * done['clipped_fraction']:.3g} % of pixels clipped"
        )
        if done["complete"]:
            print(done["output"])
    return PartialError.exit_code if done.get("failed_slices") else 0


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(metavar="OUTPUT", help="What infer wrote, or is writing.")],
    as_json: Json = False,
) -> int:
    """Check an output: every part there, decodable, finite. Exit code 4 if not.

    A flipped bit shows where the format has checksums: OME-Zarr and compressed HDF5, not TIFF and MRC.
    """
    from emsr_fast.infer.verify import verify as check

    found = check(path)
    if as_json:
        _print_json(found)
    else:
        for problem in found["problems"]:
            print(problem)
        whole = "complete" if found["complete"] else f"{len(found['problems'])} problem(s)"
        _say(f"{found['output']}: {found['checked']} parts checked, {whole}")
    return 0 if found["complete"] else PartialError.exit_code


@app.command()
def inspect(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="TIFF stack, PNG or JPEG image, a folder of these, Zarr, HDF5, MATLAB, MRC, N5 or Neuroglancer "
            "precomputed; the last two and Zarr may be an s3, gs or http URL.",
        ),
    ],
    key: Key = None,
    axes: Axes = None,
    as_json: Json = False,
) -> None:
    """Print what is understood of a volume.

    Shape, dtype, axes, and the voxel size with where it came from.
    """
    from emsr_fast.io.registry import open_source
    from emsr_fast.io.volume import described_info, info_as_json

    with open_source(path, key, axes) as source:
        info = source.info
    if as_json:
        _print_json(info_as_json(info))
    else:
        print(described_info(info))


@app.command()
def models(
    full: Annotated[
        bool,
        typer.Option("--full", help="Print all that is known: training, figures, limits, licence and credits."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Print a table of the models that come with the package, the default first."""
    from emsr_fast.model import DEFAULT_MODEL, available_models, read_card

    names = sorted(available_models(), key=lambda name: name != DEFAULT_MODEL)
    cards = [read_card(name) for name in names]
    if as_json:
        _print_json({"models": [card.model_dump() for card in cards], "default": DEFAULT_MODEL})
    elif full:
        print("\n\n".join(card.describe(is_default=card.name == DEFAULT_MODEL) for card in cards))
    else:
        from emsr_fast.cli.models_table import models_table

        print(models_table(cards, DEFAULT_MODEL))


@app.command()
def doctor() -> None:
    """Print what can run here, or why not."""
    from emsr_fast.doctor import report

    print(report())


# settings of the configuration are options of their own: the configuration knows them
_EXTRA = {"allow_extra_args": True, "ignore_unknown_options": True}
app.command()(previewing.preview)
app.command()(training.finetune)
app.command(context_settings=_EXTRA)(training.train)
app.command()(training.noise)
app.command()(pairing.pair)
app.command()(evaluation.evaluate)
app.command()(deployment.export)
app.add_typer(deployment.cache_app, name="cache")
app.command()(measuring.bench)

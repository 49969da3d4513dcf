"""The command that measures a result: evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emsr_fast.cli.common import Channel, Json, KeepDataBar, Overwrite, print_json, typed
from emsr_fast.cli.output import put


def evaluate(
    context: typer.Context,
    sr: Annotated[Path, typer.Argument(metavar="SR", help="Super-resolved volume, in any format that infer reads.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write. It appears once it is complete.")],
    reference: Annotated[
        Path | None, typer.Option(help="HR volume of the same field, to measure fidelity against.")
    ] = None,
    lr: Annotated[
        Path | None, typer.Option(help="Volume that SR was made from, to measure bicubic interpolation too.")
    ] = None,
    second_scan: Annotated[
        Path | None, typer.Option(help="Independent HR scan of the same field, for the Fourier ring correlation.")
    ] = None,
    trust: Annotated[
        Path | None, typer.Option(help="Map of the expected error, from infer --trust, to compare with the true error.")
    ] = None,
    slices: Annotated[
        str, typer.Option(metavar="A:B", help="Slices of SR from A up to, not including, B, counted from 0.")
    ] = ":",
    samples: Annotated[int, typer.Option(help="Number of slices to measure, evenly spaced; 0 for all.")] = 16,
    region: Annotated[int, typer.Option(help="Side of the region to measure in each slice, in HR pixels.")] = 1024,
    intensity_range: Annotated[
        str | None,
        typer.Option(
            "--range",
            metavar="LO:HI|dtype",
            help="Intensity range for PSNR and SSIM. Default: the one that infer would take.",
        ),
    ] = None,
    pixel_nm: Annotated[float | None, typer.Option(help="Pixel size of SR in nm. Default: the files'.")] = None,
    lpips: Annotated[
        Path | None, typer.Option(metavar="ALEXNET", help="File with the weights of AlexNet, to measure LPIPS too.")
    ] = None,
    channel: Channel = None,
    keep_data_bar: KeepDataBar = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Measure a super-resolved volume.

    Reports its fidelity, resolution and defects in a folder with report.html, which opens in any browser, report.json
    and slices.csv.
    """
    from emsr_fast.evaluate.job import evaluate as run

    line = typed(context)
    done = run(
        sr,
        output,
        reference=reference,
        lr=lr,
        second_scan=second_scan,
        trust=trust,
        slices=slices,
        samples=samples,
        region=region,
        intensity_range=intensity_range,
        pixel_nm=pixel_nm,
        lpips=lpips,
        channel=channel,
        keep_data_bar=keep_data_bar,
        overwrite=overwrite,
        say=line.say,
    )
    if as_json:
        print_json(done)
        return
    for title, sentences in done["summary"].items():
        for text in (f"{title}:", *(f"  {sentence}" for sentence in sentences)):
            line.say(text)
    put(str(done["report"]))

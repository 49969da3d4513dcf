"""The command that judges a result: evaluate."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    sr: Annotated[Path, typer.Argument(metavar="SR", help="The super-resolved volume; anything that infer reads.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report. Appears when complete.")],
    reference: Annotated[
        Path | None, typer.Option(help="HR volume of the same field; fidelity is measured against it.")
    ] = None,
    lr: Annotated[Path | None, typer.Option(help="What SR was made from; bicubic is measured too.")] = None,
    second_scan: Annotated[
        Path | None, typer.Option(help="Independent HR scan of the same field, for Fourier ring correlation.")
    ] = None,
    trust: Annotated[
        Path | None, typer.Option(help="Map of the expected error that infer --trust wrote; judged by the true one.")
    ] = None,
    slices: Annotated[str, typer.Option(help="a:b, slices of SR from a to before b, counted from 0.")] = ":",
    samples: Annotated[int, typer.Option(help="Slices to measure, spread evenly; 0 for all.")] = 16,
    region: Annotated[int, typer.Option(help="Side in HR pixels of the region measured in each slice.")] = 1024,
    grey_range: Annotated[
        str | None,
        typer.Option("--range", metavar="LO:HI|dtype", help="Data range of PSNR and SSIM. Default: as infer's."),
    ] = None,
    pixel_nm: Annotated[float | None, typer.Option(help="Side of an SR pixel in nm. Default: the files' own.")] = None,
    lpips: Annotated[
        Path | None, typer.Option(metavar="ALEXNET", help="File with AlexNet's weights, to measure LPIPS too.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier report, at the very end.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on stdout, everything else on stderr.")
    ] = False,
) -> None:
    """Measure a super-resolved volume: how faithful, how fine, with which defects.

    Writes a folder with report.html, which opens in any browser, report.json and slices.csv.
    """
    from emsr_fast.evaluate.evaluation import evaluate as run

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
        grey_range=grey_range,
        pixel_nm=pixel_nm,
        lpips=lpips,
        overwrite=overwrite,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    if as_json:
        print(json.dumps(done, allow_nan=False))
        return
    for title, sentences in done["summary"].items():
        print(f"{title}:", *(f"  {sentence}" for sentence in sentences), sep="\n", file=sys.stderr)
    print(done["report"])

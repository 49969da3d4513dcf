"""The command that writes a model for other programs: export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emsr_fast.cli.common import Json, Model, Overwrite, Precision, Provider, WindowFit, print_done, typed


def export(
    context: typer.Context,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write. It appears once it is checked.")],
    model: Model = None,
    format: Annotated[str, typer.Option(help="onnx, or trt for an engine of TensorRT or TensorRT-RTX.")] = "onnx",
    precision: Precision = None,
    window_fit: WindowFit = None,
    least: Annotated[str | None, typer.Option("--min", metavar="HxW", help="Smallest input size, in pixels.")] = None,
    best: Annotated[
        str | None,
        typer.Option("--opt", metavar="HxW", help="Input size to be fastest at. Given alone, it is the only size."),
    ] = None,
    most: Annotated[
        str | None,
        typer.Option(
            "--max", metavar="HxW", help="Largest input size. Default of the three: any size for onnx, 320x320 for trt."
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Images in one call. Default: any number for onnx without sizes, else 1."),
    ] = None,
    provider: Provider = "auto",
    no_truth_test: Annotated[
        bool, typer.Option("--no-truth-test", help="Write an engine even if its pixels differ from PyTorch's.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write a model as ONNX or as a TensorRT engine.

    The model takes "lr" of shape (B, 1, H, W) and returns "hr", both float32. Before the file is written, its output
    is compared with PyTorch's on real tiles.
    """
    from emsr_fast.export.job import export as run

    done = run(
        output,
        model=model,
        format=format,
        precision=precision,
        window_fit=window_fit,
        least=least,
        best=best,
        most=most,
        batch=batch,
        provider=provider,
        truth=not no_truth_test,
        overwrite=overwrite,
        say=typed(context).say,
    )
    print_done(done, as_json=as_json)

"""The commands around deployment: export, cache."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, everything else on stderr.")]

cache_app = typer.Typer(
    help="List or prune the cache of ONNX models and TensorRT engines (folder: EMSR_FAST_CACHE, or the user's).",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def export(
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write. Appears when checked.")],
    model: Annotated[str | None, typer.Option(help="A shipped model's name or a model file.")] = None,
    format: Annotated[str, typer.Option(help="onnx, or trt: an engine of TensorRT or TensorRT-RTX.")] = "onnx",
    precision: Annotated[
        str | None, typer.Option(help="fp32, fp16 or bf16. Default: fp32 for onnx, fp16 for trt.")
    ] = None,
    window_fit: Annotated[str | None, typer.Option(help="pad or resize. Default: the model's own.")] = None,
    least: Annotated[str | None, typer.Option("--min", metavar="HxW", help="Smallest input, in pixels.")] = None,
    best: Annotated[
        str | None, typer.Option("--opt", metavar="HxW", help="The input to be fastest at; alone, the only one.")
    ] = None,
    most: Annotated[
        str | None,
        typer.Option("--max", metavar="HxW", help="Largest input. Without sizes: any for onnx, 320x320 for trt."),
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Inputs at a time. Default: any for onnx, else 1.")] = None,
    provider: Annotated[str, typer.Option(help="auto, tensorrt or tensorrt-rtx.")] = "auto",
    no_truth_test: Annotated[
        bool, typer.Option("--no-truth-test", help="Write an engine even if its pixels are not PyTorch's.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    as_json: Json = False,
) -> None:
    """Write a model as ONNX or as a TensorRT engine.

    Input "lr" (B, 1, H, W), output "hr", both float32. The graph is compared with PyTorch on real tiles first.
    """
    from emsr_fast.engine.export_job import export as run

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
        say=_say,
    )
    print(json.dumps(done) if as_json else done["output"])


@cache_app.command("ls")
def cache_ls(as_json: Json = False) -> None:
    """List what is in the cache, last used first."""
    from emsr_fast.engine.cache import cache_folder, entries

    found = entries()
    if as_json:
        print(json.dumps({"folder": str(cache_folder()), "entries": [_as_json(entry) for entry in found]}))
        return
    for entry in found:
        print(_line(entry))
    total = sum(entry.size for entry in found)
    _say(f"{cache_folder()}: {len(found)} entries, {total / 1e6:.1f} MB")


@cache_app.command("prune")
def cache_prune(
    days: Annotated[
        float | None, typer.Option("--unused-days", min=0, help="Also what was not used for so many days.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of it.")] = False,
    as_json: Json = False,
) -> None:
    """Remove what cannot be used any more: of other versions of emsr-fast, damaged, or left by killed processes."""
    from emsr_fast import __version__
    from emsr_fast.engine.cache import prune

    removed = prune(unused_days=days, everything=everything, version=__version__)
    if as_json:
        print(json.dumps({"removed": [str(path) for path in removed]}))
    else:
        for path in removed:
            print(path)
        _say(f"{len(removed)} files removed")


def _as_json(entry: Any) -> dict[str, Any]:
    return {
        "file": str(entry.payload_path),
        "kind": entry.kind,
        "bytes": entry.size,
        "created": entry.created,
        "last_used": entry.last_used,
        "build_s": entry.build_s,
        "key": entry.key,
        "facts": entry.facts,
    }


def _line(entry: Any) -> str:
    from emsr_fast.export.shapes import Shapes

    key, tests = entry.key, entry.facts.get("truth", {}).values()
    shapes = key.get("shapes", "any")
    made = f"{key['provider']} {key['provider_version']} for {key['gpu']}" if "provider" in key else "any runtime"
    judged = (
        "truth test " + ("passed" if all(test["passed"] for test in tests) else "FAILED") if tests else "not tested"
    )
    used = time.strftime("%Y-%m-%d", time.localtime(entry.last_used))
    size = "any size" if shapes == "any" else f"{Shapes.from_json(shapes)} px"
    return (
        f"{entry.payload_path.name[:8]}  {entry.kind:<6}  {key.get('model')}, {key.get('precision')}, {size}, {made}, "
        f"{entry.size / 1e6:.1f} MB, used {used}, {judged}"
    )

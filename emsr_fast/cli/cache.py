"""The commands around the cache of ONNX models and TensorRT engines: cache ls, cache prune."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from emsr_fast.cli.common import Json, print_json, typed
from emsr_fast.cli.output import put
from emsr_fast.wording import counted

app = typer.Typer(
    help="List or prune cached ONNX models and engines.\n\nThey are in the folder that EMSR_FAST_CACHE names, "
    "or in the user's cache.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("ls")
def cache_ls(context: typer.Context, as_json: Json = False) -> None:
    """List the cache.

    The entry used last comes first.
    """
    from emsr_fast.engine.cache import cache_folder, entries

    found = entries()
    if as_json:
        print_json({"folder": str(cache_folder()), "entries": [_as_json(entry) for entry in found]})
        return
    for entry in found:
        put(_line(entry))
    total = sum(entry.size for entry in found)
    typed(context).say(f"{cache_folder()}: {counted(len(found), 'entry', 'entries')}, {total / 1e6:.1f} MB")


@app.command("prune")
def cache_prune(
    context: typer.Context,
    days: Annotated[
        float | None,
        typer.Option("--unused-days", min=0, help="Also remove entries that were not used for this many days."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove all entries.")] = False,
    as_json: Json = False,
) -> None:
    """Remove entries that are of no use.

    These are of other versions of emsr-fast, damaged, or left by killed processes.
    """
    from emsr_fast import __version__
    from emsr_fast.engine.pruning import prune

    removed = prune(unused_days=days, everything=everything, version=__version__)
    if as_json:
        print_json({"removed": [str(path) for path in removed]})
    else:
        for path in removed:
            put(str(path))
        typed(context).say(f"{counted(len(removed), 'file')} removed")


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
    from emsr_fast.convert.shapes import Shapes

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

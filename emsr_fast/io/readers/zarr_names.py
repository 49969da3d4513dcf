"""How the chunks of a Zarr array are named: its metadata say so, and are not always right."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from emsr_fast.io.readers.stored import Files, Naming, grid_of, look_for, numbered


def as_stored(
    files: Files, described: Mapping[str, Any], path: PurePath
) -> tuple[dict[str, Any], tuple[str, ...], dict[str, int]]:
    """Return an array's metadata with the separator that its files have, notes, and how many chunks are not stored.

    Args:
        files: the array's folder.
        described: its .zarray or zarr.json.
        path: for messages.

    Raises:
        VolumeError: no chunk is stored.
    """
    own = _separator(described)
    if own is None:
        return dict(described), (), {}
    separators = [own, "." if own == "/" else "/"]
    namings = [_naming(described, separator) for separator in separators]
    found = look_for(files, namings)
    # those that most files have; what a change of metadata or a broken copy left over is less
    best = max(range(2), key=lambda number: found[number].found)
    # null means that it is not set, which readers take as 0
    fill = described.get("fill_value")
    notes, absent = found[best].checked(path, 0 if fill is None else fill, _unit(described))
    examples = [naming.name((0,) * len(naming.grid)) for naming in namings]
    told = []
    if best:
        told = [f"chunks are named like {examples[1]} where the metadata say {examples[0]}: read under those names"]
    if left := found[1 - best].found:
        told.append(f"{left} files named like {examples[1 - best]} are not read: most are named like {examples[best]}")
    return (_with_separator(described, separators[1]) if best else dict(described)), (*told, *notes), absent


def _separator(described: Mapping[str, Any]) -> str | None:
    """Return the separator that metadata ask for; None where they name their chunks in a way that is not known."""
    if described["zarr_format"] == 2:
        return str(described.get("dimension_separator") or ".")
    encoding = described["chunk_key_encoding"]
    if described["chunk_grid"]["name"] != "regular" or encoding["name"] not in ("default", "v2"):
        return None
    usual = "/" if encoding["name"] == "default" else "."
    return str((encoding.get("configuration") or {}).get("separator", usual))


def _naming(described: Mapping[str, Any], separator: str) -> Naming:
    if described["zarr_format"] == 2:
        return numbered(grid_of(described["shape"], described["chunks"]), separator)
    sides = described["chunk_grid"]["configuration"]["chunk_shape"]
    prefix = f"c{separator}" if described["chunk_key_encoding"]["name"] == "default" else ""
    return numbered(grid_of(described["shape"], sides), separator, prefix)


def _with_separator(described: Mapping[str, Any], separator: str) -> dict[str, Any]:
    if described["zarr_format"] == 2:
        return {**described, "dimension_separator": separator}
    named = described["chunk_key_encoding"]["name"]
    return {**described, "chunk_key_encoding": {"name": named, "configuration": {"separator": separator}}}


def _unit(described: Mapping[str, Any]) -> str:
    codecs = described.get("codecs") or ()
    return "shards" if any(codec.get("name") == "sharding_indexed" for codec in codecs) else "chunks"

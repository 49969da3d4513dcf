"""The names of a Zarr array's chunks: those in its metadata are not always right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from emsr_fast.io.readers.parts.missing_chunks import Files, LocalFiles, Naming, grid_of, look_for, numbered
from emsr_fast.io.readers.parts.shard_index import look_inside
from emsr_fast.wording import counted


def as_stored(
    files: Files, described: Mapping[str, Any], path: PurePath, *, under_either: bool = False
) -> tuple[dict[str, Any], tuple[str, ...], dict[str, int]]:
    """Return an array's metadata with the separator of its files, notes, and how many chunks are not stored.

    The separator of the metadata is kept if at least one chunk has it: the others may be leftovers.

    Args:
        files: the array's folder.
        described: its .zarray or zarr.json.
        path: for messages.
        under_either: whether a chunk is read under either name, its own or that of ``other_name``.

    Raises:
        VolumeError: no chunk is stored.
    """
    separators = _separators(described)
    if separators is None:
        return dict(described), (), {}
    own, other = look_for(files, [_naming(described, separator) for separator in separators])
    # null means that it is not set, which readers take as 0
    fill, unit = described.get("fill_value"), unit_of(described)
    fill = 0 if fill is None else fill
    named, said = (_naming(described, separator) for separator in reversed(separators))
    first = (0,) * len(named.grid)
    here, there = f"named like {said.name(first)}", f"named like {named.name(first)}"
    told = []
    read = own
    if not own.found and other.found:
        told, read = [f"{unit} are {there} where the metadata say {said.name(first)}: read under those names"], other
        described = _with_separator(described, separators[1])
    elif other.found and under_either:
        others = counted(other.found, unit.removesuffix("s"))
        told = [f"{others} {there}: read where there is none {here}, as the metadata say"]
        # a chunk may be there under both names
        read = replace(own, found=min(own.found + other.found, own.looked_for))
    elif other.found:
        others = counted(other.found, "file")
        told = [f"{others} {there} not read: the metadata say {said.name(first)}, and there are such"]
    notes, absent = read.checked(path, fill, unit)
    if unit == "shards":
        naming = _naming(described, _separator(described) or separators[0])
        inside = look_inside(files.folder, described, naming) if isinstance(files, LocalFiles) else None
        if inside is None:
            told.append(f"what its shards lack inside is not counted, and reads as the fill value {fill}")
        else:
            notes, absent = (*notes, *inside.checked(path, fill)), absent | inside.numbers
    return dict(described), (*told, *notes), absent


def other_name(described: Mapping[str, Any]) -> Callable[[str], str | None]:
    """Return a function that gives a chunk's name with the other separator; it gives None for other names."""
    separators = _separators(described)
    if separators is None:
        return lambda name: None
    own, other = (_naming(described, separator) for separator in separators)

    def named(name: str) -> str | None:
        index = own.index(name)
        return None if index is None else other.name(index)

    return named


def _separators(described: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the separator in the metadata, and the other one; None if chunks are named in another way."""
    own = _separator(described)
    return None if own is None else (own, "." if own == "/" else "/")


def _separator(described: Mapping[str, Any]) -> str | None:
    """Return the separator in the metadata; None if they name chunks in an unknown way."""
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


def unit_of(described: Mapping[str, Any]) -> str:
    """Return what an array keeps as one file, by its metadata: "chunks" or "shards"."""
    codecs = described.get("codecs") or ()
    return "shards" if any(codec.get("name") == "sharding_indexed" for codec in codecs) else "chunks"

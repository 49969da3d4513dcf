"""The arrays of a Zarr folder, found by their files: groups may have none, as zarr-python 3.0.0 to 3.0.2 wrote them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emsr_fast.reading import parse_json, read_regular

MARKS = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
_MOST_FOLDERS, _DEEPEST = 500, 8


def is_zarr(path: Path) -> bool:
    """Return whether ``path`` is a Zarr folder: by its files, or by the suffix .zarr and a file of Zarr's below it."""
    if not path.is_dir():
        return False
    if any((path / mark).exists() for mark in MARKS):
        return True
    return path.suffix.lower() == ".zarr" and bool(images_below(path))


def images_below(path: Path, place: str = "") -> dict[str, str]:
    """Return the images below ``place``, by their path from there: multiscale images, and arrays with two axes or more.

    Args:
        path: the root of the volume; folders that are links out of it are left out.
    """
    found: dict[str, str] = {}
    waiting, visited = _inner(path, path / place), 0
    while waiting and visited < _MOST_FOLDERS:
        folder = waiting.pop(0)
        visited += 1
        array, attributes = _described(folder)
        name = folder.relative_to(path / place).as_posix()
        if array is not None:
            if len(array[0]) >= 2:
                found[name] = f"{' x '.join(map(str, array[0]))} {array[1]}"
        elif _has_image(attributes):
            found[name] = "multiscale image"
        else:
            waiting += _inner(path, folder)
    return found


def _inner(path: Path, folder: Path) -> list[Path]:
    """Return the folders in ``folder``, but for links that lead out of the volume ``path``."""
    root = os.path.realpath(path)
    try:
        entries = sorted(entry for entry in folder.iterdir() if entry.is_dir())
    except OSError:
        return []  # closed to us
    # links inside may lead in a circle
    return [
        entry
        for entry in entries
        if Path(os.path.realpath(entry)).is_relative_to(root) and len(entry.relative_to(path).parts) <= _DEEPEST
    ]


def _described(folder: Path) -> tuple[tuple[list[int], str] | None, Mapping[str, Any]]:
    """Return the shape and dtype of a folder that is an array, and the attributes of a group."""
    newer, older = _json(folder / "zarr.json"), _json(folder / ".zarray")
    if newer.get("node_type") == "array":
        return ([int(side) for side in newer.get("shape", ())], str(newer.get("data_type"))), {}
    if older:
        return ([int(side) for side in older.get("shape", ())], _dtype_name(older.get("dtype"))), {}
    attributes = newer.get("attributes") or _json(folder / ".zattrs")
    return None, attributes if isinstance(attributes, Mapping) else {}


def _dtype_name(stated: Any) -> str:
    import numpy as np

    try:
        return np.dtype(stated).name
    except TypeError:
        return str(stated)


def _json(path: Path) -> Mapping[str, Any]:
    try:
        values = parse_json(read_regular(path)) if path.is_file() else {}
    except (OSError, ValueError):
        return {}  # whoever opens it says what is wrong
    return values if isinstance(values, Mapping) else {}


def _has_image(attributes: Mapping[str, Any]) -> bool:
    ome = attributes.get("ome")
    return "multiscales" in (ome if isinstance(ome, Mapping) else attributes)

"""How an output of ``infer`` was made, read from its metadata: tile, halo, scale, slices, model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import h5py
import tifffile

from emsr_fast.reading import parse_json, parse_xml, read_regular

_TITLE = "emsr_fast"  # the attribute in a Zarr group, the namespace of an OME annotation


@dataclass(frozen=True)
class Provenance:
    """How a volume was made; every field is None where the file does not say."""

    tile: int | None = None  # side of what a tile owns, LR px
    halo: int | None = None
    scale: int | None = None
    slices: tuple[int, int] | None = None  # of the input: from, to before
    rows: tuple[int, int] | None = None
    columns: tuple[int, int] | None = None
    model: str | None = None
    software: str | None = None


def read_provenance(path: Path) -> Provenance:
    """Return the provenance in the OME-Zarr, HDF5 or OME-TIFF at ``path``; of any other file nothing is known."""
    if path.is_dir():
        return _understood(_of_zarr(path))
    if not path.is_file():
        return Provenance()
    return _understood(_of_hdf5(path) if h5py.is_hdf5(path) else _of_tiff(path))


def _of_zarr(path: Path) -> Mapping[str, Any]:
    try:
        attributes = parse_json(read_regular(path / "zarr.json")).get("attributes", {})
    except (OSError, ValueError):
        return {}
    found = attributes.get(_TITLE)
    return found if isinstance(found, Mapping) else {}


def _of_hdf5(path: Path) -> Mapping[str, Any]:
    try:
        with h5py.File(path, "r") as file:
            found = parse_json(file["raw"].attrs[_TITLE])
    except (OSError, KeyError, TypeError, ValueError):
        return {}
    return found if isinstance(found, Mapping) else {}


def _of_tiff(path: Path) -> Mapping[str, Any]:
    try:
        with tifffile.TiffFile(path) as file:
            root = parse_xml(file.ome_metadata or "<none/>")
    except (OSError, ValueError, ElementTree.ParseError, tifffile.TiffFileError):
        return {}
    for annotation in root.findall(".//{*}MapAnnotation"):
        if annotation.get("Namespace") == _TITLE:
            return {pair.get("K", ""): pair.text or "" for pair in annotation.findall(".//{*}M")}
    return {}


def _understood(found: Mapping[str, Any]) -> Provenance:
    return Provenance(
        tile=_side(found.get("tile")),
        halo=_number(found.get("halo")),
        scale=_number(found.get("scale")),
        slices=_span(found.get("slices")),
        rows=_span(found.get("rows")),
        columns=_span(found.get("columns")),
        model=_text(found.get("model")),
        software=_text(found.get("software")),
    )


def _side(value: Any) -> int | None:
    """Return the side of a tile that is written as one number, or as rows and columns; None if these differ."""
    sides = _span(value)
    if sides is None:
        return _number(value)
    return sides[0] if sides[0] == sides[1] else None


def _span(value: Any) -> tuple[int, int] | None:
    if isinstance(value, str):
        value = value.strip("[]()").split(",")
    ends = [_number(end) for end in value] if isinstance(value, list) else []
    first, last = ends if len(ends) == 2 else (None, None)
    return None if first is None or last is None else (first, last)


def _number(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def _text(value: Any) -> str | None:
    return str(value) if value else None

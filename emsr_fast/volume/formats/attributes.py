"""What plain arrays (HDF5, Zarr, N5) say of themselves in attributes that tools agreed on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from emsr_fast.volume.formats.axes import Layout
from emsr_fast.volume.voxels import UNKNOWN, VoxelSize, nanometres

# one size per axis, in nm per unit: Fiji's and ilastik's; the last two are CREMI's and funlib's, who mean nm
_SIZES = {"element_size_um": 1e3, "element_size_nm": 1.0, "resolution": 1.0, "voxel_size": 1.0}
_MEANT_IN_NM = ("resolution", "voxel_size")


def sizes_of(attributes: Mapping[str, Any], layout: Layout) -> tuple[VoxelSize, str]:
    """Return the voxel size in nm that ``attributes`` state, and where it was found."""
    for name, factor in _SIZES.items():
        origin = f"attribute {name}"
        units = _list(attributes.get("units")) if name in _MEANT_IN_NM else []
        if name in _MEANT_IN_NM and not units:
            origin += ", meant in nm"
        found = _size(_list(attributes.get(name)), units or ["nm"], factor if not units else 1.0, layout)
        if found != UNKNOWN:
            return found, origin
    stated = attributes.get("pixelResolution")
    if isinstance(stated, Mapping):
        found = _size(_list(stated.get("dimensions")), [str(stated.get("unit", ""))], 1.0, layout)
        if found != UNKNOWN:
            return found, "attribute pixelResolution"
    return UNKNOWN, "not stated in the file"


def axes_of(names: Sequence[Any] | None, dimensions: int) -> str | None:
    """Return named axes as one letter each, None unless all have one and y and x are among them."""
    letters = [str(name).upper() for name in names or ()]
    usable = len(letters) == dimensions and all(len(letter) == 1 and letter.isalpha() for letter in letters)
    return "".join(letters) if usable and {"Y", "X"} <= set(letters) and len(set(letters)) == dimensions else None


def axistags_of(text: Any) -> list[str] | None:
    """Return the axes that vigra and ilastik write as JSON, None where ``text`` is no such thing."""
    try:
        return [str(tag["key"]) for tag in json.loads(text)["axes"]]
    except (KeyError, TypeError, ValueError):
        return None


def _list(value: Any) -> list[Any]:
    return [value] if isinstance(value, str) else list(np.ravel(value)) if value is not None else []


def _size(values: list[Any], units: list[Any], factor: float, layout: Layout) -> VoxelSize:
    try:
        numbers = [float(value) * factor for value in values]
    except (TypeError, ValueError):
        return UNKNOWN
    units = [str(unit) for unit in units] * (len(numbers) if len(units) == 1 else 1)
    if len(units) != len(numbers):
        return UNKNOWN
    sizes = [nanometres(number, unit) for number, unit in zip(numbers, units, strict=True)]
    if len(sizes) == len(layout.names):
        return layout.in_order(sizes, None)
    # for the three of space, whatever other axes there are
    return (sizes[0], sizes[1], sizes[2]) if len(sizes) == 3 else UNKNOWN

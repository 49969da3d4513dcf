"""Voxel sizes and axes in the usual attributes of plain arrays (HDF5, Zarr, N5)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from emsr_fast.io.axes import Layout
from emsr_fast.io.voxels import UNKNOWN, VoxelSize, meant, nanometres
from emsr_fast.reading import parse_json

# one size per axis, in nm per unit: Fiji's and ilastik's; the last two are CREMI's and funlib's, who mean nm
_SIZES = {"element_size_um": 1e3, "element_size_nm": 1.0, "resolution": 1.0, "voxel_size": 1.0}
_NEGATIVE = "; the amount, since it is negative"
_MEANT_IN_NM = ("resolution", "voxel_size")


def sizes_of(attributes: Mapping[str, Any], layout: Layout) -> tuple[VoxelSize, str]:
    """Return the voxel size in nm that ``attributes`` state, and where it was found."""
    refused = []
    for name, values, units, factor in _stated(attributes):
        origin = f"attribute {name}"
        if name in _MEANT_IN_NM and not units:
            origin += ", meant in nm"
        found = _size(values, units or ["nm"], factor if not units else 1.0, layout)
        if found != UNKNOWN:
            return found, origin + (_NEGATIVE if _any_negative(values) else "")
        refused += [f"{origin} ignored: unit {unit!r} is not a length" for unit in units if not nanometres(1, unit)]
    return UNKNOWN, refused[0] if refused else "not stated in the file"


def _stated(attributes: Mapping[str, Any]) -> Iterator[tuple[str, list[Any], list[str], float]]:
    """Yield each attribute that states sizes: its name, its values, and their units, or nm per unit if it has none."""
    for name, factor in _SIZES.items():
        if values := _list(attributes.get(name)):
            units = _list(attributes.get("units")) or _list(attributes.get("unit")) if name in _MEANT_IN_NM else []
            yield name, values, [_text(unit) for unit in units], factor
    stated = attributes.get("pixelResolution")
    if isinstance(stated, Mapping) and (values := _list(stated.get("dimensions"))):
        yield "pixelResolution", values, [_text(stated.get("unit", ""))], 1.0


def scaled_sizes_of(attributes: Mapping[str, Any], group: Mapping[str, Any], layout: Layout) -> tuple[VoxelSize, str]:
    """Return the voxel size in nm of an N5 dataset: its own or its group's, times its downsampling factors."""
    transform = attributes.get("transform")
    if isinstance(transform, Mapping) and isinstance(transform.get("axes"), Sequence):
        # OpenOrganelle's, with axes of its own order
        axes, scales, units = ([*_list(transform.get(name))] for name in ("axes", "scale", "units"))
        if len(axes) == len(scales) == len(units):
            named = {
                str(axis).upper(): _one(scale, unit) for axis, scale, unit in zip(axes, scales, units, strict=True)
            }
            found = (named.get("Z"), named.get("Y"), named.get("X"))
            if found != UNKNOWN:
                return found, "attribute transform" + (_NEGATIVE if _any_negative(scales) else "")
    found, origin = sizes_of(attributes, layout)
    if found == UNKNOWN:
        found, origin = sizes_of(group, layout)
    factors = _list(attributes.get("downsamplingFactors"))
    if found != UNKNOWN and len(factors) == len(layout.names):
        z, y, x = layout.in_order([float(factor) for factor in factors], 1.0)
        found = (_times(found[0], z), _times(found[1], y), _times(found[2], x))
    return found, origin


def axes_of(names: Sequence[Any] | None, dimensions: int) -> str | None:
    """Return named axes as one letter each; None if one has no letter, or y or x is missing."""
    letters = [str(name).upper() for name in names or ()]
    usable = len(letters) == dimensions and all(len(letter) == 1 and letter.isalpha() for letter in letters)
    return "".join(letters) if usable and {"Y", "X"} <= set(letters) and len(set(letters)) == dimensions else None


def axistags_of(text: Any) -> list[str] | None:
    """Return the axes that vigra and ilastik write as JSON; None if ``text`` is no such JSON."""
    try:
        return [str(tag["key"]) for tag in parse_json(text)["axes"]]
    except (KeyError, TypeError, ValueError):
        return None


def _list(value: Any) -> list[Any]:
    return [value] if isinstance(value, (str, bytes)) else list(np.ravel(value)) if value is not None else []


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _number(value: Any) -> float:
    # the decimal that was meant: 0.0046, not what is nearest to it in 32 bits
    return float(str(value)) if isinstance(value, np.float32) else float(value)


def _any_negative(values: list[Any]) -> bool:
    return any(float(value) < 0 for value in values)


def _size(values: list[Any], units: list[str], factor: float, layout: Layout) -> VoxelSize:
    try:
        numbers = [abs(_number(value)) * factor for value in values]
    except (TypeError, ValueError):
        return UNKNOWN  # whatever it says, it is no size
    units = units * (len(numbers) if len(units) == 1 else 1)
    if len(units) != len(numbers):
        return UNKNOWN
    sizes = [nanometres(number, unit) for number, unit in zip(numbers, units, strict=True)]
    if len(sizes) == len(layout.names):
        return layout.in_order(sizes, None)
    # for the three of space, whatever other axes there are
    return (sizes[0], sizes[1], sizes[2]) if len(sizes) == 3 else UNKNOWN


def _one(scale: Any, unit: Any) -> float | None:
    try:
        return nanometres(abs(float(scale)), str(unit))
    except (TypeError, ValueError):
        return None


def _times(size: float | None, factor: float) -> float | None:
    return None if size is None else meant(size * factor)

"""Imaris' HDF5 files (.ims): the places of their images, their size without padding, and the voxel size."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from emsr_fast.errors import UsageError, VolumeError
from emsr_fast.io.axes import Layout
from emsr_fast.io.readers.parts.hdf5_links import own
from emsr_fast.io.voxels import FLOAT32, UNKNOWN, VoxelSize, amount

_IMAGE = re.compile(r"(DataSet\d*)/ResolutionLevel (\d+)/TimePoint (\d+)/Channel (\d+)/Data")
_INFO = "DataSetInfo"


@dataclass(frozen=True)
class Place:
    """Which image of the file it is."""

    name: str  # of its dataset
    level: int
    time: int
    channel: int


def place_of(file: h5py.File, name: str) -> Place | None:
    """Return which image the dataset ``name`` is; None if it is not an image of Imaris."""
    found = _IMAGE.fullmatch(name.strip("/"))
    if found is None or not isinstance(own(file, f"{_INFO}/Image"), h5py.Group):
        return None
    return Place(name, int(found[2]), int(found[3]), int(found[4]))


def finest(file: h5py.File, names: Mapping[str, str], channel: int | None = None) -> dict[str, str]:
    """Return only the images at full resolution among ``names``; in files of other kinds, all of them.

    Args:
        channel: the one to keep; None for all.

    Raises:
        UsageError: there is no such channel.
    """
    places = [place for name in names if (place := place_of(file, name)) and place.level == 0]
    kept = [place for place in places if channel in (None, place.channel)]
    if places and not kept:
        there = ", ".join(str(number) for number in sorted({place.channel for place in places}))
        raise UsageError(f"channel {channel}: {file.filename} has channels {there}; give one of these")
    return {place.name: names[place.name] for place in kept} if kept else dict(names)


def levels_note(file: h5py.File, place: Place) -> list[str]:
    """Return a note on the other resolutions of an image."""
    group = own(file, "DataSet")
    levels = sorted(group) if isinstance(group, h5py.Group) else []
    return [f"{len(levels)} levels: {', '.join(levels)}; another one with `key`"] if len(levels) > 1 else []


def without_padding(data: h5py.Dataset, path: Path) -> tuple[Layout, list[str]]:
    """Return the image's layout without padding, and a note if it was padded to whole chunks.

    Raises:
        VolumeError: it is no stack, or its size is not stated, or more than is stored.
    """
    stored = tuple(int(side) for side in data.shape)
    stated = [_number(data.parent.attrs, f"ImageSize{axis}") for axis in "ZYX"]
    size = tuple(int(side or 0) for side in stated)
    if len(stored) != 3 or any(not 1 <= side <= most for side, most in zip(size, stored, strict=True)):
        raise VolumeError(
            f"{path}: {data.parent.name} states the size {stated} (ImageSizeZ, Y, X) of {stored} stored voxels; "
            "export it again"
        )
    sized = " x ".join(map(str, stored))
    return Layout("ZYX", size), [f"stored as {sized} voxels: the padding is left out"] if size != stored else []


def voxel_size(file: h5py.File, size: tuple[int, int, int]) -> tuple[VoxelSize, str, list[str]]:
    """Return the voxel size in nm of an image of ``size``, where it was found, and notes on values that are ignored."""
    attributes, notes = file[f"{_INFO}/Image"].attrs, list[str]()
    unit = _text(attributes.get("Unit")) or "um"
    sizes: list[float | None] = []
    # Imaris counts axes from x
    for axis, number, side in zip("zyx", (2, 1, 0), size, strict=True):
        low, high = (_number(attributes, f"Ext{end}{number}") for end in ("Min", "Max"))
        if low is None or high is None or low == high:
            sizes.append(None)
        else:
            sizes.append(amount((high - low) / side, unit, f"Imaris' extent along {axis}", notes, FLOAT32))
    found = (sizes[0], sizes[1], sizes[2])
    return found, "Imaris' extents" if found != UNKNOWN else "not stated in the file", notes


def _number(attributes: Any, name: str) -> float | None:
    try:
        value = float(_text(attributes.get(name)))
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _text(value: Any) -> str:
    """Return the text that Imaris stores as an array of single characters."""
    if value is None:
        return ""
    if isinstance(value, np.ndarray):
        return b"".join(np.ravel(value).astype("S")).decode("utf-8", "replace").strip("\0 ")
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

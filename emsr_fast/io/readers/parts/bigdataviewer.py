"""BigDataViewer's HDF5 and N5: the places of their images, and the voxel size, from the XML file beside them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from emsr_fast.errors import VolumeError
from emsr_fast.io.readers.parts.files import read_part
from emsr_fast.io.readers.parts.hdf5_links import own
from emsr_fast.io.voxels import UNKNOWN, VoxelSize, amount
from emsr_fast.reading import parse_xml

_CELLS = re.compile(r"t\d{5,}/s(\d{2,})/(\d+)/cells")
_MOST_BYTES = 2**26  # of the XML file
_N5_LEVEL = re.compile(r"(?P<container>.+)/setup(?P<setup>\d{1,9})/timepoint\d+/s\d+", re.ASCII | re.DOTALL)
_TABLE = re.compile(r"s\d{2,}/(resolutions|subdivisions)")


@dataclass(frozen=True)
class Place:
    """Which image of the file it is."""

    setup: str  # its number as written, "00"
    level: int


def place_of(file: h5py.File, name: str) -> Place | None:
    """Return which image the dataset ``name`` is, None if the file is not of this kind."""
    found = _CELLS.fullmatch(name)
    if found is None or not isinstance(own(file, f"s{found[1]}/resolutions"), h5py.Dataset):
        return None
    return Place(found[1], int(found[2]))


def is_table(file: h5py.File, name: str) -> bool:
    """Return whether the dataset ``name`` is a table about the levels of an image, not an image."""
    return _TABLE.fullmatch(name) is not None and any(re.fullmatch(r"t\d{5,}", other) for other in file)


def voxel_size(path: Path, file: h5py.File, place: Place) -> tuple[VoxelSize, str, list[str]]:
    """Return the voxel size in nm of the image at ``place``, where it was found, and notes on ignored values."""

    def coarser() -> list[float]:
        # x, y, z of a voxel of this level in voxels of the first
        return [float(factor) for factor in np.asarray(file[f"s{place.setup}/resolutions"])[place.level]]

    return _in_xml(path.with_suffix(".xml"), path, int(place.setup), coarser)


def voxel_size_in_n5(dataset: Path, factors: Any) -> tuple[VoxelSize, str, list[str]] | None:
    """Return what the XML file beside a container says of ``dataset``, as ``voxel_size`` does; None if there is none.

    Args:
        factors: x, y, z of its voxel in voxels of the finest level, as its attributes state them; None for the finest.
    """
    found = _N5_LEVEL.fullmatch(dataset.as_posix())
    if found is None:
        return None
    container = Path(found["container"])
    xml = container.with_suffix(".xml")
    if not xml.exists():
        return None
    return _in_xml(xml, container, int(found["setup"]), lambda: [float(one) for one in factors or (1, 1, 1)])


def _in_xml(
    xml: Path, path: Path, number: int, coarser: Callable[[], Sequence[float]]
) -> tuple[VoxelSize, str, list[str]]:
    try:
        text = read_part(xml.parent, xml, path, _MOST_BYTES)
    except VolumeError as error:
        return UNKNOWN, f"{xml.name} is not read: {error}", []
    if text is None:
        return UNKNOWN, f"not found: BigDataViewer keeps it in {xml.name}, which is not beside the file", []
    notes: list[str] = []
    try:
        root = parse_xml(text)
        setups = {(one.findtext("id") or "").strip(): one for one in root.iter("ViewSetup")}
        setup = setups[str(number)]
        unit = (setup.findtext("voxelSize/unit") or "").strip()
        x, y, z = (float(side) for side in (setup.findtext("voxelSize/size") or "").split())
        factors = coarser()[::-1]
        sizes = [
            amount(side * factor, unit, f"voxel size {axis} in {xml.name}", notes)
            for axis, side, factor in zip("zyx", (z, y, x), factors, strict=True)
        ]
    except (ElementTree.ParseError, OSError, KeyError, IndexError, ValueError, TypeError) as error:
        return UNKNOWN, f"{xml.name} states none that can be read ({type(error).__name__}: {error})", []
    return (sizes[0], sizes[1], sizes[2]), f"BigDataViewer's {xml.name}", notes

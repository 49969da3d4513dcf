"""Voxel sizes in TIFF files: OME's PhysicalSize, ImageJ's spacing and unit, microscopes' own, the resolution tags."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

import tifffile

from emsr_fast.io.readers.tiff.vendor_texts import Stated
from emsr_fast.io.voxels import RATIO, UNKNOWN, VoxelSize, amount, from_density, meant, nanometres
from emsr_fast.reading import parse_xml

_RESOLUTION_UNITS = {2: "inch", 3: "cm"}


def read_voxel_size(
    file: tifffile.TiffFile, page: tifffile.TiffPage, series: int = 0, stated: Stated | None = None
) -> tuple[VoxelSize, str, tuple[str, ...]]:
    """Return the voxel size in nm (z, y, x), where it was found, and notes on values that are ignored.

    Args:
        file: an open TIFF.
        page: the first of the image.
        series: which of OME's images it is.
        stated: what the microscope wrote, see ``read_vendors``.
    """
    notes: list[str] = []
    own = stated or Stated("")
    for read, origin in (
        (lambda: _from_ome(file, series, notes), "OME PhysicalSize"),
        (lambda: _from_imagej(file, notes), "ImageJ unit, spacing and resolution"),
        (lambda: own.pixel_nm, own.pixel_from),
        (lambda: UNKNOWN if own.printers_resolution else _from_resolution(page, notes), "TIFF resolution tags"),
    ):
        if (found := read()) != UNKNOWN:
            return found, origin, tuple(notes)
    return UNKNOWN, "not stated in the file", tuple(notes)


def read_position(file: tifffile.TiffFile, series: int = 0) -> VoxelSize:
    """Return the position of the first slice in OME's metadata, in nm (z, y, x)."""
    pixels = _ome_pixels(file, series, [])
    first = None if pixels is None else pixels.find("{*}Plane[@TheZ='0']")
    if first is None:
        return UNKNOWN

    def side(axis: str) -> float | None:
        # the schema's default is a frame of which nobody knows what it is
        in_nm = nanometres(1, first.get(f"Position{axis}Unit", "reference frame"))
        try:
            position = float(first.get(f"Position{axis}", "nan"))
        except ValueError:
            return None
        return meant(position * in_nm) if in_nm is not None and math.isfinite(position * in_nm) else None

    return (side("Z"), side("Y"), side("X"))


def _ome_pixels(file: tifffile.TiffFile, series: int, notes: list[str]) -> ElementTree.Element | None:
    """Return OME's metadata of image number ``series``."""
    if not file.is_ome or not file.ome_metadata:
        return None
    try:
        root = parse_xml(file.ome_metadata)
    except ElementTree.ParseError as error:
        notes.append(f"OME metadata ignored: {error}")
        return None
    images = [node for node in root.iter() if node.tag.rpartition("}")[2] == "Pixels"]
    return images[series] if series < len(images) else None


def _from_ome(file: tifffile.TiffFile, series: int, notes: list[str]) -> VoxelSize:
    pixels = _ome_pixels(file, series, notes)
    if pixels is None:
        return UNKNOWN

    def side(axis: str) -> float | None:
        value = pixels.get(f"PhysicalSize{axis}")
        if value is None:
            return None
        unit = pixels.get(f"PhysicalSize{axis}Unit", "\u00b5m")  # the schema's default
        try:
            return amount(float(value), unit, f"OME PhysicalSize{axis}", notes)
        except ValueError:
            notes.append(f"OME PhysicalSize{axis} ignored: {value} {unit} is not a length")
            return None

    return (side("Z"), side("Y"), side("X"))


def _from_imagej(file: tifffile.TiffFile, notes: list[str]) -> VoxelSize:
    metadata = file.imagej_metadata if file.is_imagej else None
    if metadata is None:
        return UNKNOWN
    density_x, density_y = _densities(file.pages.first)
    try:
        spacing = float(metadata.get("spacing", 0))
    except (TypeError, ValueError):
        spacing = 0.0
    steps = (spacing, 1 / density_y if density_y > 0 else 0.0, 1 / density_x if density_x > 0 else 0.0)
    # "unit" is that of x, and of the others unless they have their own
    units = [str(metadata.get(name) or metadata.get("unit", "")) for name in ("zunit", "yunit", "unit")]
    refused = {unit for unit in units if nanometres(1, unit) is None}
    for unit in sorted(refused):
        if unit.lower() not in ("", "pixel", "pixels"):
            notes.append(f"ImageJ calibration ignored: unit {unit!r} is not a length")
    z, y, x = (
        amount(step, unit, f"ImageJ's {what}", notes, RATIO) if step and unit not in refused else None
        for step, unit, what in zip(steps, units, ("spacing", "pixel height", "pixel width"), strict=True)
    )
    return (z, y, x)


def _from_resolution(page: tifffile.TiffPage, notes: list[str]) -> VoxelSize:
    unit = _RESOLUTION_UNITS.get(int(page.tags.valueof("ResolutionUnit", 2)))
    if unit is None:
        return UNKNOWN
    density_x, density_y = _densities(page)
    (x, doubt), (y, _) = from_density(density_x, unit), from_density(density_y, unit)
    if doubt:
        notes.append(doubt)
    return (None, y, x)


def _densities(page: tifffile.TiffPage) -> tuple[float, float]:
    """Return pixels per unit along x and y; 0 where the tag is missing or nonsense."""

    def density(tag: str) -> float:
        value = page.tags.valueof(tag)
        try:
            return float(value[0] / value[1])
        except (TypeError, IndexError, ZeroDivisionError):
            return 0.0

    return density("XResolution"), density("YResolution")

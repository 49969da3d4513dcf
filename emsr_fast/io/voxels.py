"""Voxel sizes in nanometres, (z, y, x); an unknown size is None, never 1."""

from __future__ import annotations

import math

VoxelSize = tuple[float | None, float | None, float | None]

UNKNOWN: VoxelSize = (None, None, None)

# how exactly a size is known that was computed, stored as a ratio of whole numbers (TIFF), or in 32 bits
PRODUCT, RATIO, FLOAT32 = 1e-12, 1e-9, 1e-7

# what image files call their units, lower case except where a small letter means something else, in nm
_NM_PER_UNIT = {
    "nm": 1.0,
    "nanometer": 1.0,
    "nanometers": 1.0,
    "nanometre": 1.0,
    "nanometres": 1.0,
    "um": 1e3,
    "\u00b5m": 1e3,  # micro sign
    "\u03bcm": 1e3,  # greek letter mu
    "\\u00b5m": 1e3,  # how ImageJ escapes the micro sign
    "micron": 1e3,
    "microns": 1e3,
    "micrometer": 1e3,
    "micrometers": 1e3,
    "micrometre": 1e3,
    "micrometres": 1e3,
    "mm": 1e6,
    "millimeter": 1e6,
    "millimeters": 1e6,
    "millimetre": 1e6,
    "millimetres": 1e6,
    "cm": 1e7,
    "centimeter": 1e7,
    "centimeters": 1e7,
    "centimetre": 1e7,
    "centimetres": 1e7,
    "dm": 1e8,
    "decimeter": 1e8,
    "in": 2.54e7,
    "inch": 2.54e7,
    "inches": 2.54e7,
    "m": 1e9,
    "meter": 1e9,
    "meters": 1e9,
    "metre": 1e9,
    "metres": 1e9,
    "pm": 1e-3,
    "picometer": 1e-3,
    "picometre": 1e-3,
    "A": 0.1,
    "angstrom": 0.1,
    "angstroms": 0.1,
    "\u00e5": 0.1,  # letter a with ring, lower case of the next
    "\u212b": 0.1,  # angstrom sign
}

# resolution tags above this are a screen's or a printer's (72 dpi is 353 um), not a microscope's
LARGEST_PLAUSIBLE_PIXEL_NM = 10_000.0


# no microscope has pixels of a millimetre: such a step stands for nothing, or is in another unit than its file says
LARGEST_PIXEL_NM = 1e6


def meant(value: float, precision: float = PRODUCT) -> float:
    """Return the short decimal that ``value`` was computed from, or ``value`` itself if it is near none.

    For 13.8 / 3 = 4.6000000000000005 it is 4.6; 10 / 3 stays as it is.

    Args:
        precision: the largest relative difference; the decimal has one digit less than this allows.
    """
    most = round(-math.log10(precision)) - 1
    candidate = float(f"{value:.{most}g}")
    return candidate if abs(candidate - value) <= precision * abs(value) else value


def nanometres(value: float, unit: str, precision: float = PRODUCT) -> float | None:
    """Return ``value`` in nm, or None if the unit is not a length we know or the value is not positive and finite.

    Args:
        precision: see ``meant``.
    """
    name = unit.strip()
    factor = _NM_PER_UNIT.get(name) or _NM_PER_UNIT.get(name.lower())
    if factor is None or not math.isfinite(value) or value <= 0:
        return None
    return meant(value * factor, precision)


def amount(value: float, unit: str, what: str, notes: list[str], precision: float = PRODUCT) -> float | None:
    """Return the length of a step that may be negative, in nm; None, with a note, if it is no length.

    Args:
        what: "OME PhysicalSizeZ", for notes. Writers give a stack that was taken upwards a negative step.
    """
    size_nm = nanometres(abs(value), unit, precision)
    if size_nm is None:
        notes.append(f"{what} ignored: {value} {unit} is not a length")
    elif value < 0:
        notes.append(f"{what} is negative ({value} {unit}): its amount is taken")
    return size_nm


def divided(voxel_size_nm: VoxelSize, scale: int) -> VoxelSize:
    """Return the voxel size after super-resolution: z as it was, y and x divided by ``scale``; unknown stays None."""
    z, y, x = voxel_size_nm
    return (z, None if y is None else meant(y / scale), None if x is None else meant(x / scale))


def multiplied(voxel_size_nm: VoxelSize, scale: int) -> VoxelSize:
    """Return the voxel size before super-resolution, the inverse of ``divided``."""
    z, y, x = voxel_size_nm
    return (z, None if y is None else meant(y * scale), None if x is None else meant(x * scale))


def described(voxel_size_nm: VoxelSize) -> str:
    """Return the voxel size in words, "30 x 10 x 10 nm (z, y, x)"; axes without a size read "unknown"."""
    if voxel_size_nm == UNKNOWN:
        return "unknown"
    return " x ".join("unknown" if side is None else f"{side:.6g}" for side in voxel_size_nm) + " nm (z, y, x)"


def from_density(pixels_per_unit: float, unit: str) -> tuple[float | None, str | None]:
    """Return the pixel size in nm from a resolution tag, and a note if the tag is ignored.

    Args:
        pixels_per_unit: the tag's value; 0, negative or infinite count as absent.
        unit: "cm", "inch" or "m".
    """
    if not math.isfinite(pixels_per_unit) or pixels_per_unit <= 0:
        return None, None
    size_nm = nanometres(1 / pixels_per_unit, unit, RATIO)
    if size_nm is None:
        return None, None
    if size_nm > LARGEST_PLAUSIBLE_PIXEL_NM:
        return None, (
            f"resolution tags ignored: {size_nm / 1e3:.4g} um per pixel ({2.54e7 / size_nm:.4g} dpi) "
            "is a screen's or printer's, not a microscope's"
        )
    return size_nm, None

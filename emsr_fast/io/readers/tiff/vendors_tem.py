"""What transmission microscopes and their cameras state in TIFF tags: TIA, DigitalMicrograph, JEOL, TVIPS, Olympus.

The functions are like those of ``vendors_sem``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tifffile

from emsr_fast.io.readers.tiff.vendor_texts import (
    Stated,
    child_text,
    number,
    parsed_xml,
    sides,
    text_of,
)
from emsr_fast.io.voxels import FLOAT32, RATIO, nanometres
from emsr_fast.wording import shortened

_PER_INCH_NM, _PER_CM_NM = 2.54e7, 1e7
_INCH = 2
# a data bar below a square image of TIA has about 67 rows for 2048
_TIA_BAR = 1 / 16


def tia(page: tifffile.TiffPage, path: Path, notes: list[str]) -> Stated | None:
    """TIA (FEI Tecnai, Titan): XML in tag 34682, resolution tags of its own."""
    text = text_of(page, 34682)
    if text is None or not text.lstrip().startswith("<Root"):
        return None
    root = parsed_xml(text, "TIA's TIFF tag 34682", notes)
    if root is None:
        return None
    words = {child_text(node, "Label"): child_text(node, "Value") for node in root.iterfind("Data")}
    unit = {_INCH: _PER_INCH_NM, 3: _PER_CM_NM}.get(page.tags.valueof(65452, 0))
    y, x = (None if unit is None else _step(page.tags.valueof(code), unit) for code in (65451, 65450))
    # TIA states no height; its cameras are square
    height, width = int(page.imagelength), int(page.imagewidth)
    square = (width, width) if 0 < height - width <= width * _TIA_BAR else None
    return Stated(
        f"FEI {words.get('Microscope', '').removeprefix('Microscope ')}".strip(), sides(y, x, "nm"),
        "TIA's TIFF tags 65450 and 65451", square, "TIA states no height, and its cameras are square",
    )  # fmt: skip


def micrograph(page: tifffile.TiffPage, path: Path, notes: list[str]) -> Stated | None:
    """DigitalMicrograph: units in tags 65003 to 65005, steps in 65009 to 65011, in the order x, y, z."""
    steps: list[float | None] = []
    for unit_tag, step_tag in ((65005, 65011), (65004, 65010), (65003, 65009)):
        step, unit = page.tags.valueof(step_tag), text_of(page, unit_tag)
        one = isinstance(step, int | float) and unit is not None
        steps.append(nanometres(abs(float(step)), unit or "", RATIO) if one else None)
    if steps[1] is None and steps[2] is None:
        return None
    return Stated("Gatan DigitalMicrograph", (steps[0], steps[1], steps[2]), "DigitalMicrograph's TIFF tags")


def sightx(page: tifffile.TiffPage, path: Path, notes: list[str]) -> Stated | None:
    """JEOL SightX: the XML in the image description; the resolution is that of the camera, before magnification."""
    if str(page.tags.valueof("Make", "")).strip() != "JEOL Ltd." or "<TemReporter" not in page.description:
        return None
    root = parsed_xml(page.description.strip(" \r\n\t\x00\x01"), "JEOL's image description", notes)
    if root is None:
        return Stated("JEOL", printers_resolution=True)
    name = " ".join(filter(None, ("JEOL", child_text(root, "Instruments") or str(page.tags.valueof("Model", "")))))
    system = "ImageFormingSystem"
    mode, magnification = child_text(root, f"{system}/ModeString"), number(child_text(root, f"{system}/SelectorValue"))
    if child_text(root, "Eos/EosMode") != "eosTEM" or mode != "MAG" or not magnification:
        notes.append(f"JEOL's mode {shortened(mode) or 'is not stated'}: its pixel is no length that is known")
        return Stated(name, printers_resolution=True)
    unit = _PER_INCH_NM if page.tags.valueof("ResolutionUnit", _INCH) == _INCH else _PER_CM_NM
    y, x = (_step(page.tags.valueof(tag), unit / magnification) for tag in ("YResolution", "XResolution"))
    return Stated(name, sides(y, x, "nm"), "JEOL's resolution and magnification", printers_resolution=True)


def tvips(page: tifffile.TiffPage, path: Path, notes: list[str]) -> Stated | None:
    """TVIPS: tag 37706, which tifffile parses; lengths in nm."""
    metadata = page.tags.valueof(37706)
    if not metadata:
        return None
    y, x = (number(metadata.get(f"PixelSize{axis}")) for axis in "YX")
    camera = str(metadata.get("CameraType", "")).partition("\x00")[0].strip()
    return Stated(f"TVIPS {camera}".strip(), sides(y, x, "nm", FLOAT32), "TVIPS' TIFF tag 37706")


def olympus(page: tifffile.TiffPage, path: Path, notes: list[str]) -> Stated | None:
    """Olympus SIS: tags 33560 and 33471, which tifffile parses."""
    parts = [part for code in (33471, 33560) if isinstance(part := page.tags.valueof(code), dict)]
    metadata = {name: value for part in parts for name, value in part.items()}
    if not metadata:
        return None
    y, x = (number(metadata.get(f"pixelsize{axis}")) for axis in "yx")
    return Stated(
        f"Olympus SIS {metadata.get('cameraname', '')}".strip(), sides(y, x), "Olympus' TIFF tag 33560"
    )  # fmt: skip


def _step(density: Any, unit_nm: float) -> float | None:
    """Return the pixel in nm from a TIFF rational, pixels for each unit."""
    try:
        return float(unit_nm * density[1] / density[0])
    except (TypeError, IndexError, ZeroDivisionError):
        return None

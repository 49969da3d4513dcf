"""What scanning microscopes state in TIFF tags or beside the file: Fibics, Zeiss, FEI, Thermo, TESCAN, Hitachi, JEOL.

Each function takes a page of an open TIFF, the path of the file and a list for notes. It returns what the vendor
states, and None where the page is not that vendor's. Lengths are in metres unless a unit is named.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import tifffile

from emsr_fast.io.readers.tiff.vendor_texts import (
    Stated,
    beside,
    child_text,
    first_line,
    lines_of,
    number,
    parsed_xml,
    sections_of,
    sides,
    size_of,
    text_of,
    whole,
)
from emsr_fast.io.voxels import RATIO, UNKNOWN, VoxelSize, meant, nanometres

_ROUNDING = 0.01  # by how much a size in a few digits may differ from the one it was rounded from


def fibics(page: tifffile.TiffPage, path: Path, notes: list[str]) -> Stated | None:
    """Fibics (Zeiss Atlas, NPVE): the XML in tag 51023."""
    root = parsed_xml(text_of(page, 51023), "Fibics' TIFF tag 51023", notes)
    if root is None or root.tag != "Fibics":
        return None
    # the steps of one column and one row, as vectors on the sample: a rotated scan has both parts
    column, row = (
        [number(child_text(root, f"Scan/{vector}{part}")) or 0.0 for part in "xy"] for vector in ("U", "V")
    )  # fmt: skip
    stated = root.find("Scan/Ux")
    unit = "um" if stated is None else stated.get("units", "um")
    return Stated(
        " ".join(filter(None, ("Fibics", child_text(root, "Application/Version"), child_text(root, "Image/Beam")))),
        sides(math.hypot(*row), math.hypot(*column), unit),
        "Fibics' TIFF tag 51023",
        size_of(child_text(root, "Image/Height"), child_text(root, "Image/Width")),
        "Height in Fibics' TIFF tag 51023",
    )


def orion(page: tifffile.TiffPage, path: Path, notes: list[str]) -> Stated | None:
    """Zeiss Orion: the XML in tag 65000."""
    text = text_of(page, 65000)
    if text is None or not text.lstrip().startswith("<ImageTags"):
        return None
    root = parsed_xml(text, "Zeiss' TIFF tag 65000", notes)
    if root is None:
        return None
    lengths = [(number(child_text(root, f"Scaling{axis}/Value")), f"Scaling{axis}/Units") for axis in "YX"]
    y, x = (nanometres(value or 0, child_text(root, unit)) for value, unit in lengths)
    # names with a dot are no paths
    model = next((child_text(node, "Value") for node in root if node.tag == "System.Model"), "")
    return Stated(
        f"Zeiss {model.strip('_ ') or 'Orion'}",
        (None, y, x),
        "Zeiss' TIFF tag 65000",
        size_of(child_text(root, "ImageHeight/Value"), child_text(root, "ImageWidth/Value")),
        "ImageHeight in Zeiss' TIFF tag 65000",
    )


def zeiss(page: tifffile.TiffPage, path: Path, notes: list[str]) -> Stated | None:
    """Zeiss SEM: tag 34118, which tifffile parses."""
    metadata = page.tags.valueof(34118)
    if not metadata:
        return None
    side, origin = None, "Zeiss' TIFF tag 34118"
    for name in ("ap_image_pixel_size", "ap_pixel_size"):
        value = metadata.get(name, ())
        if side is None and len(value) == 3:
            side, origin = nanometres(float(value[1]), str(value[2])), f"{name.upper()} in Zeiss' TIFF tag 34118"
    # the fourth number, which has no name, is the pixel in metres where the image is shown with 1024 columns
    unnamed = (text_of(page, 34118) or "").split()[:4]
    shown = nanometres(number(unnamed[3]) or 0, "m", RATIO) if len(unnamed) == 4 else None
    if shown is not None:
        exact = meant(shown * 1024 / int(page.imagewidth), RATIO)
        # the named sizes are rounded; AP_PIXEL_SIZE may be that of the image as it is shown
        rounded = side is None or math.isclose(side, exact, rel_tol=_ROUNDING)
        if rounded or ("AP_PIXEL_SIZE" in origin and math.isclose(side or 0, shown, rel_tol=_ROUNDING)):
            side, origin = exact, "the fourth number in Zeiss' TIFF tag 34118"
    # "1024 * 768"
    stored = str((*metadata.get("dp_image_store", ()), "", "")[1]).partition("*")
    return Stated(
        "Zeiss SEM", (None, side, side), origin,
        size_of(stored[2], stored[0]), "DP_IMAGE_STORE in Zeiss' TIFF tag 34118",
    )  # fmt: skip


def fei(page: tifffile.TiffPage, path: Path, notes: list[str]) -> Stated | None:
    """FEI and Thermo: lines in sections in tags 34680 and 34682."""
    code = 34682 if 34682 in page.tags else 34680
    # tifffile keeps only the last of sections with the same name
    metadata = sections_of(text_of(page, code) or "")
    if not metadata:
        return None
    beam, image = metadata.get("Beam", {}), metadata.get("Image", {})
    origin = f"FEI's TIFF tag {code}"
    pixel = UNKNOWN
    for name in ("Scan", beam.get("Scan", ""), "EScan", "IScan"):
        scan = metadata.get(name, {})
        if pixel == UNKNOWN:
            pixel = sides(number(scan.get("PixelHeight")), number(scan.get("PixelWidth")))
    for name in ("IRBeam", beam.get("Beam", ""), "EBeam", "IBeam"):
        if pixel == UNKNOWN and name in metadata:
            field = [number(metadata[name].get(side)) for side in ("VFW", "HFW")]
            count = [number(image.get(side)) for side in ("ResolutionY", "ResolutionX")]
            y, x = (a / b if a and b else None for a, b in zip(field, count, strict=True))
            pixel = sides(y, x)
    return Stated(
        f"FEI {metadata.get('System', {}).get('SystemType', '')}".strip(), pixel, origin,
        size_of(image.get("ResolutionY"), image.get("ResolutionX")), f"ResolutionY in {origin}",
    )  # fmt: skip


def thermo(page: tifffile.TiffPage, path: Path, notes: list[str]) -> Stated | None:
    """Thermo: the XML in tag 34683."""
    root = parsed_xml(text_of(page, 34683), "Thermo's TIFF tag 34683", notes)
    if root is not None and root.tag == "FeiImage":
        return _phenom(root, int(page.imagelength))
    result = None if root is None else root.find("BinaryResult")
    if root is None or result is None:
        return None
    return Stated(
        f"Thermo {child_text(root, 'Instrument/InstrumentClass')}".strip(),
        _with_units(result, "PixelSize/Y", "PixelSize/X"),
        "Thermo's TIFF tag 34683",
        size_of(child_text(result, "ImageSize/Y"), child_text(result, "ImageSize/X")),
        "ImageSize in Thermo's TIFF tag 34683",
    )


def _phenom(root: ElementTree.Element, height: int) -> Stated:
    """Return what a Phenom states: its XML has another form."""
    bar = whole(child_text(root, "databarHeight"))
    return Stated(
        f"Thermo Phenom {child_text(root, 'instrument/type')}".strip(),
        _with_units(root, "pixelHeight", "pixelWidth"),
        "Thermo's TIFF tag 34683",
        (height - bar, None) if 0 < bar < height else None,
        "databarHeight in Thermo's TIFF tag 34683",
    )


def _with_units(root: ElementTree.Element, *paths: str) -> VoxelSize:
    """Return a pixel's height and width from elements with an attribute for the unit."""
    found: list[float | None] = []
    for node in map(root.find, paths):
        value = None if node is None else number(node.text)
        found.append(None if node is None or value is None else nanometres(value, node.get("unit", ""), RATIO))
    return (None, found[0], found[1])


def tescan(page: tifffile.TiffPage, path: Path, notes: list[str]) -> Stated | None:
    """TESCAN: key=value lines in tag 50431, or in the .hdr beside the file."""
    text, origin = text_of(page, 50431), "TESCAN's TIFF tag 50431"
    if text is None or "PixelSizeX=" not in text:
        text, origin = beside(path, (f"{path.stem}.hdr", f"{path.stem}{path.suffix.replace('.', '-')}.hdr"), notes)
        if text is None or "[MAIN]" not in text or "PixelSizeX=" not in text:
            return None
    values = lines_of(text)
    strip, height = whole(values.get("ImageStripSize")), int(page.imagelength)
    return Stated(
        values.get("Device") or "TESCAN",
        sides(number(values.get("PixelSizeY")), number(values.get("PixelSizeX"))),
        origin,
        (height - strip, None) if 0 < strip < height else None,
        f"ImageStripSize in {origin}",
    )


def sidecar(page: tifffile.TiffPage, path: Path, notes: list[str]) -> Stated | None:
    """Hitachi and JEOL SEM: the .txt beside the file."""
    text, origin = beside(path, (f"{path.stem}.txt", f"{path.stem}.TXT"), notes)
    if text is None:
        return None
    if first_line(text) in ("[SemImageFile]", "[TemImageFile]"):
        values = lines_of(text)
        size, unit = (*values.get("PixelSize", "").split(), "", "nm")[:2] if values.get("PixelSize") else ("", "nm")
        side = nanometres(number(size) or 0, unit or "nm")
        width, _, height = values.get("DataSize", "").partition("x")
        return Stated(
            f"Hitachi {values.get('InstructName', '')}".strip(), (None, side, side), origin,
            size_of(height, width), f"DataSize in {origin}",
        )  # fmt: skip
    if "$$SM_MICRON_BAR" not in text or "$$SM_MICRON_MARKER" not in text:
        return None
    values = lines_of(text, " ")
    marker, bar = values["$$SM_MICRON_MARKER"], number(values["$$SM_MICRON_BAR"])
    digits = marker.rstrip("abcdefghijklmnopqrstuvwxyz\u00b5\u03bc ")
    length = nanometres(number(digits) or 0, marker[len(digits) :])
    side = length / bar if length and bar and bar > 0 else None
    width, _, height = values.get("$CM_FULL_SIZE", "").partition(" ")
    return Stated(
        f"JEOL {values.get('$CM_INSTRUMENT', '')}".strip(), sides(side, side, "nm"), origin,
        size_of(height, width), f"$CM_FULL_SIZE in {origin}",
    )  # fmt: skip

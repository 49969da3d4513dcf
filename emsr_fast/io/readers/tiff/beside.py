"""Files that a TIFF names, and the planes that it claims: checked before tifffile opens or counts them."""

from __future__ import annotations

import math
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import tifffile

from emsr_fast.errors import VolumeError
from emsr_fast.io.formats import TIFF_MAGIC, begins_with
from emsr_fast.io.readers.parts.files import DamagedError, check_inside, check_regular
from emsr_fast.reading import parse_xml
from emsr_fast.wording import quoted

# so many claimed planes cost no memory worth a word; of more there must be as many bytes as their directories take
_FEW_PLANES = 2**17
_LEAST_DIRECTORY = 100  # bytes of a page's tags


def check_ome(file: tifffile.TiffFile, path: Path) -> None:
    """Raise VolumeError if OME metadata name files outside the folder, or claim more planes than the files can hold.

    Raises:
        VolumeError: a name leads out of the folder or to a file that is no TIFF, or there are too many planes.
    """
    root = metadata_of(file)
    if root is None:
        return
    folder, size = Path(file.filehandle.dirname), file.filehandle.size
    for name in sorted(set(names_in(root))):
        place = folder / name
        check_inside(folder, place, path)
        if os.path.lexists(place) and name != file.filename:
            check_regular(place, path)
            # an empty one counts as missing
            if place.stat().st_size and not begins_with(place, TIFF_MAGIC):
                raise VolumeError(
                    f"{path} names {quoted(name)} as a part of it, which is not a TIFF file; give the whole set"
                )
            size += place.stat().st_size
    most = max(_FEW_PLANES, size // _LEAST_DIRECTORY)
    if (claimed := max(_claims(root), default=0)) > most:
        raise VolumeError(f"{path} claims {claimed:.4g} planes, its files have {size} bytes; check how it was written")


def check_count(slices: int, page: tifffile.TiffPage, size: int, path: Path) -> None:
    """Raise DamagedError if a file of ``size`` bytes cannot hold ``slices`` pages, or their pixels behind one of them.

    Args:
        slices: as many as the file claims.
        page: one of them.
    """
    least = min(_LEAST_DIRECTORY, page.imagelength * page.imagewidth * page.bitspersample // 8)
    if slices > _FEW_PLANES and slices * least > size:
        raise DamagedError(f"{path} claims {slices} slices, the file has {size} bytes; copy or export it again")


def metadata_of(file: tifffile.TiffFile) -> ElementTree.Element | None:
    """Return a file's OME metadata; None if it has none, or none that parse."""
    try:
        return parse_xml(file.ome_metadata) if file.ome_metadata else None
    except ElementTree.ParseError:
        return None  # then tifffile does not use them either


def names_in(root: ElementTree.Element) -> Iterator[str]:
    """Yield the names of the other files: a name with the UUID of the root means this file, under an older name."""
    for identity in root.iterfind(".//{*}TiffData/{*}UUID"):
        if (name := identity.get("FileName")) and (identity.text is None or identity.text != root.get("UUID")):
            yield name


def _claims(root: ElementTree.Element) -> Iterator[float]:
    """Yield every number of planes that the metadata state."""
    for pixels in root.iterfind(".//{*}Pixels"):
        yield math.prod(_number(pixels.get(f"Size{axis}"), 1) for axis in "ZCT")
    for data in root.iterfind(".//{*}TiffData"):
        yield from (_number(data.get(name), 0) for name in ("PlaneCount", "NumPlanes"))
    for element in root.iterfind(".//{*}Modulo/*"):
        first, last = _number(element.get("Start"), 0), _number(element.get("End"), 0)
        yield abs(last - first) / (abs(_number(element.get("Step"), 1)) or 1)


def _number(text: str | None, default: float) -> float:
    try:
        return default if text is None else float(text)
    except ValueError:
        return default  # tifffile says what is wrong with it

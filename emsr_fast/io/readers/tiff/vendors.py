"""What microscopes write into their TIFF files, or beside them: the instrument, the pixel size, the image's height."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import tifffile

from emsr_fast.io.readers.tiff import vendors_sem as sem
from emsr_fast.io.readers.tiff import vendors_tem as tem
from emsr_fast.io.readers.tiff.vendor_texts import Stated
from emsr_fast.io.volume import instrument_name
from emsr_fast.io.voxels import LARGEST_PIXEL_NM, UNKNOWN
from emsr_fast.wording import shortened

_READERS = (
    sem.fibics,
    sem.orion,
    sem.zeiss,
    sem.fei,
    sem.thermo,
    sem.tescan,
    tem.tia,
    tem.micrograph,
    tem.sightx,
    tem.tvips,
    tem.olympus,
    sem.sidecar,
)


# tags in which a page states its microscope itself
_TAGS = {51023, 65000, 34118, 34680, 34682, 34683, 50431, 65009, 65010, 37706, 33471, 33560}


def vendor_page(chosen: tifffile.TiffPage, first: tifffile.TiffPage) -> tifffile.TiffPage:
    """Return the page that states the microscope of the ``chosen`` one: itself, else the file's first."""
    return chosen if any(code in chosen.tags for code in _TAGS) else first


def read_vendors(page: tifffile.TiffPage, path: Path, notes: list[str]) -> Stated | None:
    """Return what the microscope states; None if no vendor is known by this file.

    Where programs of two vendors wrote into one file, the first in our order that states a thing is believed.

    Args:
        page: of an open TIFF, see ``vendor_page``.
        path: where the file lies; files beside it are read, too.
        notes: a list to which metadata that are ignored are added.
    """
    found = [stated for reader in _READERS if (stated := _tried(reader, page, path, notes))]
    if not found:
        return None
    sized = next((one for one in found if one.pixel_nm != UNKNOWN), found[0])
    known = [side for side in sized.pixel_nm if side is not None]
    if any(side >= LARGEST_PIXEL_NM for side in known):
        notes.append(f"{sized.pixel_from} ignored: {max(known):g} nm is no pixel of a microscope")
        sized = replace(sized, pixel_nm=UNKNOWN)
    framed = next((one for one in found if one.image), found[0])
    return Stated(
        instrument=instrument_name(found[0].instrument),
        pixel_nm=sized.pixel_nm,
        pixel_from=sized.pixel_from,
        image=framed.image,
        image_from=framed.image_from,
        printers_resolution=any(one.printers_resolution for one in found),
    )


def _tried(
    reader: Callable[[tifffile.TiffPage, Path, list[str]], Stated | None],
    page: tifffile.TiffPage,
    path: Path,
    notes: list[str],
) -> Stated | None:
    try:
        return reader(page, path, notes)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        # tags of the right number and another content: they say nothing about the pixels
        what = (reader.__doc__ or "").partition(":")[0]
        notes.append(f"metadata of {what} ignored: {type(error).__name__}: {shortened(str(error))}")
        return None

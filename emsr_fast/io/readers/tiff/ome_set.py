"""Sets of OME-TIFFs: several files that each name all of them as parts of one image."""

from __future__ import annotations

import logging
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import tifffile

from emsr_fast.io.formats import TIFF_MAGIC, begins_with
from emsr_fast.io.readers.tiff.beside import metadata_of, names_in
from emsr_fast.reading import parse_xml
from emsr_fast.wording import shortened


def others_of(file: tifffile.TiffFile) -> list[str]:
    """Return the names of the other files of a set, in their order in the metadata; none if it is no set."""
    root = metadata_of(file)
    named = [] if root is None else names_in(root)
    return [name for name in dict.fromkeys(named) if name.lower() != file.filename.lower()]


def set_of(path: Path) -> list[str]:
    """Return the names of the other files of the set that the TIFF file ``path`` names; none if it cannot be read."""
    log = logging.getLogger("tifffile")
    disabled, log.disabled = log.disabled, True  # what is wrong is said when the pixels are read
    try:
        with tifffile.TiffFile(path) as file:
            return others_of(file)
    except Exception:  # tifffile raises many kinds for a damaged file
        return []
    finally:
        log.disabled = disabled


def missing_of(names: Sequence[str], folder: Path) -> list[str]:
    """Return those of ``names`` that are no TIFF file of ``folder``."""
    # unlike pathlib, os.path has no error for a name that no file can have
    return [name for name in names if not (os.path.isfile(folder / name) and begins_with(folder / name, TIFF_MAGIC))]


def why_no_ome(file: tifffile.TiffFile) -> str | None:
    """Return why a file's OME metadata do not define its slices; None if they do, or if there are none."""
    if not file.is_ome:
        return None
    try:
        parse_xml(file.ome_metadata or "")
        _ = file.series
    except ElementTree.ParseError:
        return ""  # which is said where the voxel size is looked for in them
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
        reason = shortened(f"{type(error).__name__}: {error}", 200)
        return f"OME metadata do not fit the file ({reason}): read as plain TIFF"
    return None

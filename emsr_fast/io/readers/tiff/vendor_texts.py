"""Texts that microscopes write into TIFF tags and beside TIFF files: numbers, lines, XML without entities."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tifffile

from emsr_fast.errors import VolumeError
from emsr_fast.io.readers.parts.files import read_part
from emsr_fast.io.voxels import RATIO, UNKNOWN, VoxelSize, nanometres
from emsr_fast.reading import parse_xml

_MOST_BYTES = 2**22  # of a tag or a file beside; genuine ones have a few thousand


@dataclass(frozen=True)
class Stated:
    """What a microscope wrote beside the pixels."""

    instrument: str
    pixel_nm: VoxelSize = UNKNOWN
    pixel_from: str = ""
    # rows and columns of the image without its data bar; no columns where none are stated
    image: tuple[int, int | None] | None = None
    image_from: str = ""
    printers_resolution: bool = False  # whether the TIFF resolution tags are known to mean something else

    def rows_of(self, height: int, width: int, keep_data_bar: bool, notes: list[str]) -> int:
        """Return how many rows of a page are read; what is below them is the data bar.

        Args:
            height: rows of a page.
            width: columns of it.
            keep_data_bar: whether all rows are read.
            notes: a list to which it is added what was left out.
        """
        if self.image is None:
            return height
        rows, columns = self.image
        if columns is not None and columns != width:
            notes.append(f"its metadata state {rows} x {columns} px, its pages have {height} x {width}: read whole")
            return height
        if rows >= height:
            return height
        bar = f"rows {rows} to {height - 1} are the data bar ({self.image_from})"
        if keep_data_bar:
            notes.append(f"{bar}, and are kept as `keep_data_bar` says")
            return height
        notes.append(f"{bar}, and are left out; `keep_data_bar=True` keeps them")
        return rows


def text_of(page: tifffile.TiffPage, code: int) -> str | None:
    """Return a tag of a page as text, whatever type it was written with; None if it is not there."""
    tag = page.tags.get(code)
    if tag is None:
        return None
    handle = page.parent.filehandle
    handle.seek(tag.valueoffset)
    return decoded(handle.read(min(tag.valuebytecount, _MOST_BYTES)))


def decoded(content: bytes) -> str:
    """Return text in UTF-16 with a mark, in UTF-8, or in Latin-1."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8-sig").strip("\x00")
    except UnicodeDecodeError:
        return content.decode("latin-1").strip("\x00")


def beside(path: Path, names: Sequence[str], notes: list[str]) -> tuple[str | None, str]:
    """Return the text of the first of ``names`` that lies in the folder of ``path``, and words for that file.

    A file that leads out of the folder, is no file or is too large is left alone, with a note.
    """
    for name in names:
        try:
            content = read_part(path.parent, path.parent / name, path, _MOST_BYTES)
        except VolumeError as error:
            notes.append(f"{name} beside it is not read: {error}")
            continue
        if content is not None:
            return decoded(content), f"the {Path(name).suffix.lower()} beside it"
    return None, ""


def lines_of(text: str, sign: str = "=") -> dict[str, str]:
    """Return ``key=value`` lines; of a key that is there twice, the first. Control characters end a line, too."""
    values: dict[str, str] = {}
    for line in re.split(r"[\r\n\x00-\x08]+", text):
        key, found, value = line.strip().partition(sign)
        if found:
            values.setdefault(key.strip(), value.strip())
    return values


def sections_of(text: str) -> dict[str, dict[str, str]]:
    """Return the lines below each ``[section]``, as ``lines_of`` does; a section that is there twice is one."""
    found: dict[str, dict[str, str]] = {}
    for part in re.split(r"^[ \t]*(?=\[[^\]\r\n]*\])", text, flags=re.MULTILINE)[1:]:
        name, _, lines = part[1:].partition("]")
        # an empty value is none
        own = {key: value for key, value in lines_of(lines).items() if value}
        found[name] = own | found.get(name, {})
    return found


def first_line(text: str) -> str:
    """Return the first line that is not empty."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def parsed_xml(text: str | None, what: str, notes: list[str]) -> ElementTree.Element | None:
    """Return the root of ``text``; None, with a note, if it is damaged or has a DOCTYPE."""
    if text is None:
        return None
    try:
        return parse_xml(text.strip())
    except ElementTree.ParseError as error:
        notes.append(f"{what} ignored: its XML cannot be read ({error})")
        return None


def child_text(node: ElementTree.Element, path: str) -> str:
    """Return the text at ``path`` below ``node``, "" if there is none."""
    return (node.findtext(path) or "").strip()


def number(value: Any) -> float | None:
    """Return a finite number, or None; computers of some countries write its point as a comma."""
    try:
        found = float(value.replace(",", ".") if isinstance(value, str) else value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def whole(value: Any) -> int:
    """Return a whole number above 0, or 0."""
    found = number(value)
    return int(found) if found is not None and 0 < found < 2**31 and found == int(found) else 0


def size_of(rows: Any, columns: Any) -> tuple[int, int] | None:
    """Return a stated image size; None unless both are whole numbers above 0."""
    size = (whole(rows), whole(columns))
    return size if all(size) else None


def sides(y: float | None, x: float | None, unit: str = "m", precision: float = RATIO) -> VoxelSize:
    """Return a voxel size from a pixel's height and width; a missing or impossible one is unknown."""

    def side(value: float | None) -> float | None:
        return None if value is None else nanometres(abs(value), unit, precision)

    return (None, side(y), side(x))

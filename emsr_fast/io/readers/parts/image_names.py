"""The names of a folder's images: which files are slices, their order, and gaps in their numbers."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from emsr_fast.errors import VolumeError
from emsr_fast.io.formats import JEISS_MAGIC, TIFF_MAGIC, begins_with, is_volume_file
from emsr_fast.io.readers.parts.unread import contents_of
from emsr_fast.wording import counted, listed

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dm3", ".dm4", ".ser")
# TIFF under other names, if its content says so
_TIFF_SUFFIXES = (".btf", ".tf2", ".tf8", ".bigtiff", ".gtiff", ".lsm", ".stk", ".ptif", ".qptiff")
_BESIDE = (".txt", ".hdr")  # of what microscopes write beside a TIFF
_NAMED = 5  # gaps in a note
_COPY = re.compile(r"(?: \(\d+\)| - copy(?: \(\d+\))?)$", re.ASCII)  # how Windows and browsers name a copy


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Return a sort key under which ``slice_9`` comes before ``slice_10``."""
    # numbers sort before words and by value; the text of a number breaks ties such as 1 and 01
    return [(0, int(part), part) if _is_number(part) else (1, 0, part.casefold()) for part in _parts(name)]


def image_files(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the images of ``folder`` in natural order, and notes on what else is there and what is missing.

    Broken links and files that cannot be read are among them: each is a slice, too.

    Raises:
        VolumeError: there are none, or two files are the same slice.
    """
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    visible = [entry for entry in entries if not entry.is_dir()]
    files = images_among(entries)
    if not files:
        raise VolumeError(contents_of(folder, entries, is_volume_file))
    notes = []
    # what a microscope writes beside each image is read with it
    stems = {f"{file.stem}{ending}" for file in files for ending in ("", file.suffix.replace(".", "-"))}
    skipped = set(visible) - set(files)
    if others := sorted(one.name for one in skipped if one.suffix.lower() not in _BESIDE or one.stem not in stems):
        notes.append(f"{counted(len(others), 'other file')} skipped: {', '.join(others[:3])}")
    named_so = [entry.name for entry in entries if entry.is_dir() and entry.suffix.lower() in IMAGE_SUFFIXES]
    if named_so:
        folders = counted(len(named_so), "folder")
        notes.append(f"{folders} with an image's name skipped: {', '.join(sorted(named_so)[:3])}")
    files.sort(key=lambda file: natural_key(file.name))
    check_names(files)
    return files, notes + _copies(files) + gaps([file.stem for file in files])


def images_among(entries: Sequence[Path]) -> list[Path]:
    """Return those of a folder's entries that are images, by their name or content."""
    visible = [entry for entry in entries if not entry.is_dir() and not entry.name.startswith(".")]
    files = [
        entry
        for entry in visible
        if entry.suffix.lower() in IMAGE_SUFFIXES or _is(TIFF_MAGIC, entry, _TIFF_SUFFIXES) or _is_jeiss(entry)
    ]
    # without one, TIFF under any name
    return files or [entry for entry in visible if _is(TIFF_MAGIC, entry)]


def _is_jeiss(file: Path) -> bool:
    return _is((JEISS_MAGIC,), file, (".dat",))


def _is(magics: tuple[bytes, ...], file: Path, suffixes: Sequence[str] | None = None) -> bool:
    if suffixes is not None and file.suffix.lower() not in suffixes:
        return False
    try:
        return begins_with(file, magics)
    except OSError:
        return False


def check_names(files: Sequence[Path]) -> None:
    """Raise VolumeError if the names of two files differ only in suffixes or capitals: which one is the slice?"""
    found: dict[str, Path] = {}
    for file in files:
        other = found.setdefault(_bare(file), file)
        if other is not file:
            how = "but for capital letters" if other.name.lower() == file.name.lower() else "with two suffixes"
            raise VolumeError(f"{file.parent} has {other.name} and {file.name}, one name {how}; move one of them away")


def _bare(file: Path) -> str:
    """Return a name in small letters without the suffixes of images, of which there may be several."""
    name = file.name.lower()
    while name.endswith(tuple(suffixes := (*IMAGE_SUFFIXES, *_TIFF_SUFFIXES, ".ome"))):
        name = name.removesuffix(next(suffix for suffix in suffixes if name.endswith(suffix)))
    return name


def _copies(files: Sequence[Path]) -> list[str]:
    """Return a note on files that are named as copies of others in the folder."""
    names = {_bare(file) for file in files}
    copies = [file.name for file in files if (bare := _COPY.sub("", _bare(file))) != _bare(file) and bare in names]
    if not copies:
        return []
    return [f"{counted(len(copies), 'file')} with a copy's name, each a slice all the same: {', '.join(copies[:3])}"]


def gaps(names: Sequence[str]) -> list[str]:
    """Return notes on numbers that are missing, or come twice, among ``names``.

    Names that differ only in a number are a series. Its step is the greatest one that fits all its numbers. If several
    numbers differ, the first one that counts regularly is used.

    Args:
        names: in the order of the slices.
    """
    series: dict[tuple[str, ...], list[list[int]]] = defaultdict(list)
    for name in names:
        parts = _parts(name)
        words = tuple("0" if _is_number(part) else part for part in parts)
        series[words].append([int(part) for part in parts if _is_number(part)])
    notes: list[str] = []
    for numbers in series.values():
        varying = [column for column in zip(*numbers, strict=True) if len(set(column)) > 1]
        if len(varying) == 1:
            notes += _gaps(sorted(varying[0]))
        elif counter := next((column for column in map(list, varying) if _is_regular(column)), None):
            notes += _gaps(counter)
    return notes


def _is_regular(numbers: list[int]) -> bool:
    """Return whether numbers rise from slice to slice, most by one step, the others by multiples of it."""
    steps = [after - number for number, after in pairwise(numbers)]
    step = min(steps)
    return step > 0 and 2 * steps.count(step) > len(steps) and all(found % step == 0 for found in steps)


def _gaps(numbers: list[int]) -> Iterator[str]:
    if twice := sorted({number for number, after in pairwise(numbers) if number == after}):
        yield f"numbers that come twice, as 1 and 01 do: {listed([str(number) for number in twice], _NAMED)}"
    step = math.gcd(*(after - number for number, after in pairwise(numbers)))
    missing = [_span(number + step, after - step) for number, after in pairwise(numbers) if after - number > step]
    if missing:
        steps = f" in steps of {step}" if step > 1 else ""
        yield f"numbers run from {numbers[0]} to {numbers[-1]}{steps}, missing: {listed(missing, _NAMED)}"


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first} to {last}"


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"([0-9]+)", name) if part]


def _is_number(part: str) -> bool:
    return part.isascii() and part.isdigit()

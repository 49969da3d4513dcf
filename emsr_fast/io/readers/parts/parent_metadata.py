"""Metadata in the folders above an array that was given by its own path, such as "img.zarr/0"."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from emsr_fast.errors import VolumeError
from emsr_fast.io.readers.parts.ngff import Multiscale, datasets_of, multiscale_of
from emsr_fast.reading import parse_json, read_regular

# folders above that are looked at: an image is rarely more than one, a plate of images four
MOST_ABOVE = 5

# attributes of a group above, the array's path from there, and the group's folder
Group = tuple[Mapping[str, Any], str, PurePath]


def image_above(groups: Iterable[Group]) -> tuple[Multiscale, str] | None:
    """Return the multiscale image that lists an array, and the array's name there; None if no group lists it.

    Args:
        groups: those above the array, nearest first; groups that do not list the array need not be valid.

    Raises:
        VolumeError: the metadata that list it are not valid.
    """
    for attributes, name, folder in groups:
        listed = name in datasets_of(attributes)
        if listed and (image := multiscale_of(attributes, folder, name)) and name in image.levels:
            return image, name
    return None


def local_groups(path: Path, place: str = "") -> Iterator[Group]:
    """Yield the groups above the folder ``path``, by the given path and by its real path.

    Args:
        place: of the array in ``path``.

    Raises:
        VolumeError: metadata that are no JSON.
    """
    for start in dict.fromkeys((Path(os.path.abspath(path)), Path(os.path.realpath(path)))):
        for folder in itertools.islice(start.parents, MOST_ABOVE):
            name = (start / place).relative_to(folder).as_posix()
            for attributes in (_json(folder / "zarr.json").get("attributes"), _json(folder / ".zattrs")):
                if isinstance(attributes, Mapping):
                    yield attributes, name, folder


def _json(path: Path) -> Mapping[str, Any]:
    try:
        text = read_regular(path) if path.is_file() else b"{}"
    except OSError:
        return {}  # folders above may be closed to us: then they say nothing
    try:
        values = parse_json(text)
    except ValueError as error:
        raise VolumeError(
            f"{path} is not JSON: {error}; correct it, or name the axes with `axes` to do without"
        ) from error
    return values if isinstance(values, Mapping) else {}

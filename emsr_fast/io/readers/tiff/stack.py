"""Which pages of a TIFF are the slices of one grey stack, by the axes that the file or the user names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emsr_fast.errors import UsageError, VolumeError
from emsr_fast.io.axes import Asked, no_channels

# axes that are a stack's depth whatever the writer called them; T because many writers call z time
_STACK_AXES = "ZQI"
_READ_AS_Z = {"T": "time", "C": "channel"}
# so many are colours or stains; more are slices, which ImageJ and OME writers call channels unless told otherwise
_MOST_CHANNELS = 8


def slices_of(axes: str, shape: Sequence[int], asked: Asked, path: Path, notes: list[str]) -> tuple[str, list[int]]:
    """Return the axes of a stack, without those of length 1, and the page of each slice.

    Args:
        axes: one letter for each side of ``shape``, as the file names them; Y and X are those of a page.
        asked: what the user says; it goes before what the file says.
        notes: a list to which assumptions are added.

    Raises:
        UsageError: ``asked`` does not fit, or names no channel of the file.
        VolumeError: not one grey stack.
    """
    named = _without_ones(axes, shape)
    if "S" in dict(named):
        raise VolumeError(
            f"{path} has {dict(named)['S']} samples per pixel (RGB, or grey with alpha), "
            "expected one: convert it to grey; if these are slices of a stack, save it with photometric='minisblack'"
        )
    if asked.axes is not None:
        named = _named(axes, shape, asked.axes, path)
    names = "".join(name for name, _ in named)
    lead = [side for name, side in named if name not in "YX"]
    pages: Any = np.arange(math.prod(lead)).reshape(lead)
    if not names.endswith("YX"):
        raise VolumeError(f"{path} has axes {_sized(named)}; expected one stack of slices: Z, Y, X")
    if asked.channel is not None and "C" not in (asked.axes or axes):
        raise no_channels(asked.channel, path, _sized(named))
    words, place = names, names.find("C")
    channels = lead[place] if place >= 0 else 1
    # a stack of nothing but many channels is one of slices, unless one is asked for
    if asked.channel is not None or (place >= 0 and not (len(lead) == 1 and channels > _MOST_CHANNELS)):
        channel = asked.of(channels, path)
        words += f" (channel {channel} of 0 to {channels - 1})"
        if place >= 0:
            pages, names = pages.take(channel, place), names.replace("C", "")
    if pages.ndim > 1:
        raise VolumeError(f"{path} has axes {_sized(named)}; expected one stack of slices: Z, Y, X")
    if names[0] in _READ_AS_Z:
        notes.append(f"the {_READ_AS_Z[names[0]]} axis is read as z")
    elif len(names) > 2 and names[0] not in _STACK_AXES:
        notes.append(f"axis {names[0]} is read as z")
    return words, [int(page) for page in pages.ravel()]


def _without_ones(axes: str, shape: Sequence[int]) -> list[tuple[str, int]]:
    return [(name, int(side)) for name, side in zip(axes, shape, strict=True) if side != 1 or name in "YX"]


def _named(axes: str, shape: Sequence[int], asked: str, path: Path) -> list[tuple[str, int]]:
    """Return the names that ``asked`` gives to all axes, or to those longer than 1; Y and X stay those of a page."""
    stated = [(name, int(side)) for name, side in zip(axes, shape, strict=True)]
    for sides in (stated, _without_ones(axes, shape)):
        if len(asked) == len(sides):
            names = _without_ones(asked, [side for _, side in sides])
            if [side for name, side in sides if name in "YX"] == [side for name, side in names if name in "YX"] and (
                "".join(name for name, _ in names).endswith("YX")
            ):
                return names
    raise UsageError(
        f"`axes` {asked!r} do not fit {path}, which has {_sized(stated)}; name as many, the last two Y and X"
    )


def _sized(named: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{name}={side}" for name, side in named)

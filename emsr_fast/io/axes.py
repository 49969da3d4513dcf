"""Which stored axis is z, y and x: named by the file, by ``axes``, or in the usual order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, TypeVar

import numpy as np

from emsr_fast.errors import UsageError, VolumeError
from emsr_fast.wording import counted, listed, quoted

_T = TypeVar("_T")
# a last axis so short beside two long ones may be colours as well as slices
_MOST_COLOURS = 4
_DROPPED = "-"


class NoChannelsError(UsageError):
    """A channel is asked for of a volume that has no axis C."""


@dataclass(frozen=True)
class Asked:
    """What the user says of how a volume is stored."""

    axes: str | None = None  # their names, slowest first; None for what the file says
    channel: int | None = None  # which one along axis C, counted from 0; None if there is but one
    keep_data_bar: bool = False  # whether the printed strip below a microscope's image is read, too

    def of(self, channels: int, path: PurePath) -> int:
        """Return the channel asked for of so many.

        Raises:
            UsageError: there are fewer.
            VolumeError: none is asked for.
        """
        most = channels - 1
        if self.channel is None:
            raise VolumeError(
                f"{path} has {channels} channels; name one with `channel`, 0 to {most}, "
                "or if they are slices, name that axis Z with `axes`"
            )
        if not 0 <= self.channel <= most:
            raise UsageError(f"channel {self.channel}: {path} has {channels}, 0 to {most}; give one of these")
        return self.channel


def no_channels(channel: int, path: PurePath, what: str) -> NoChannelsError:
    """Return the error for a channel of a volume that has none; ``what`` it is in words."""
    return NoChannelsError(
        f"channel {channel}: {path} has no axis C ({what}); leave `channel` out, or name that axis with `axes`"
    )


@dataclass(frozen=True)
class Layout:
    """The names of a stored array's axes, slowest first; along all but z, y, x and the channels the length is 1."""

    names: str  # one character per axis, "ZYX", "TCZYX", "YXZ"; no z means one slice
    shape: tuple[int, ...]
    channel: int = 0  # which one along axis C is the grey stack

    @property
    def stack(self) -> tuple[int, int, int]:
        """The shape as (Z, Y, X)."""
        return self.in_order(self.shape, 1)

    def in_order(self, values: Sequence[_T], missing: _T) -> tuple[_T, _T, _T]:
        """Return ``values``, one per stored axis, as (z, y, x); ``missing`` where there is no such axis."""
        found = dict(zip(self.names, values, strict=True))
        return (found.get("Z", missing), found.get("Y", missing), found.get("X", missing))

    def reversed(self) -> Layout:
        """Return the layout of the same array stored fastest axis first."""
        return Layout(self.names[::-1], self.shape[::-1], self.channel)

    def read(self, array: Any, slices: slice, rows: slice, cols: slice) -> np.ndarray:
        """Return part of ``array`` as (slices, rows, cols), for any stored order of axes."""
        where = {"Z": slices, "Y": rows, "X": cols, "C": self.channel}
        block = np.asarray(array[tuple(where.get(name, 0) for name in self.names)])
        kept = [name for name in self.names if name in "ZYX"]
        if "Z" not in kept:
            block, kept = block[None], ["Z", *kept]
        return block.transpose([kept.index(name) for name in "ZYX"])


def layout_of(
    shape: Sequence[int],
    path: PurePath,
    *,
    asked: Asked = Asked(),
    stated: str | None = None,
    usual: str = "ZYX",
) -> tuple[Layout, str]:
    """Return the layout of an array of ``shape``, and the axes in words.

    Args:
        shape: sides of the stored array.
        path: the file, for messages.
        asked: what the user says; it comes before the names in the file.
        stated: the axes' names in the file, one character each, None if it has none.
        usual: the order of three unnamed axes; of two, the same without Z.

    Raises:
        UsageError: ``asked`` names no axes, or no channel, of this array.
        VolumeError: several images, no grey stack, or axes that only the user can name.
    """
    sides = tuple(int(side) for side in shape)
    sized = " x ".join(map(str, sides)) or "no axes"
    if asked.axes is not None:
        names, words = check_axes(asked.axes), "as `axes` says"
        if len(names) != len(sides):
            raise UsageError(
                f"`axes` {asked.axes!r} are {len(names)}, but {path} has {len(sides)}: {sized}; name each of them"
            )
    elif stated is not None:
        names, words = stated.upper(), ""
    else:
        names, words = _usual(sides, usual, path, sized), "not named in the file: taken as usual"
    if "Y" not in names or "X" not in names:
        raise VolumeError(
            f"{path} has axes {names}, expected Y and X among them; save it with the axes Z, Y and X, or say which "
            "they are with `axes`"
        )
    channel = 0
    if "C" not in names and asked.channel is not None:
        raise no_channels(asked.channel, path, f"{names}: {sized}")
    for name, side in zip(names, sides, strict=True):
        if name == "C" and (side != 1 or asked.channel is not None):
            channel = asked.of(side, path)
            words = f"{words}; channel {channel} of 0 to {side - 1}".removeprefix("; ")
        elif name not in "ZYX" and side != 1:
            raise VolumeError(
                f"{path} has {side} along axis {name} ({names}: {sized}); expected one grey stack: "
                "save one of them by itself, or if they are slices, name the axis Z with `axes`"
            )
    shown = names.replace(_DROPPED, "1")
    return Layout(names, sides, channel), f"{shown} ({words})" if words else shown


def check_axes(text: str) -> str:
    """Return ``axes`` in upper case.

    Raises:
        UsageError: other characters than letters, a letter twice, or no Y and X.
    """
    names = text.upper()
    if not (names.isascii() and names.isalpha()) or len(set(names)) != len(names) or not {"Y", "X"} <= set(names):
        raise UsageError(
            f"`axes` {quoted(text)} must name each axis once by a letter, slowest first, with Y and X; such as ZYX "
            "or CZYX"
        )
    return names


def _usual(shape: tuple[int, ...], usual: str, path: PurePath, sized: str) -> str:
    long = [index for index, side in enumerate(shape) if side != 1]
    if len(shape) <= 3:
        kept = list(range(len(shape)))
    elif len(long) in (2, 3):
        kept = long
    else:
        kept = []
    if len(kept) not in (2, 3):
        raise VolumeError(
            f"{path} has axes without names, {sized}; save it with the axes Z, Y and X, or name them with `axes`, "
            "such as TZYX"
        )
    if len(kept) == 3 and shape[kept[2]] <= _MOST_COLOURS < min(shape[kept[0]], shape[kept[1]]):
        raise VolumeError(
            f"{path} has axes without names, {sized}: the last may be slices or colours; "
            f"say so with `axes`, such as {usual} or YXC"
        )
    letters = iter(usual if len(kept) == 3 else usual.replace("Z", ""))
    return "".join(next(letters) if index in kept else _DROPPED for index in range(len(shape)))


def chosen(candidates: Mapping[str, str], key: str | None, path: PurePath) -> str:
    """Return the name of the image that ``key`` asks for, or of the only one.

    Args:
        candidates: the images' names, each with a description.

    Raises:
        VolumeError: there are several and no key, or none of that name; the message lists them.
    """
    there = listed([f"{name or '/'} ({what})" for name, what in candidates.items()], 8) or "none"
    if key is not None:
        if key not in candidates:
            raise VolumeError(f"{path} has no image {key!r} of its own; there are: {there}")
        return key
    if not candidates:
        raise VolumeError(f"{path} has no image in it: no numbers with two or more axes; check the path")
    if len(candidates) > 1:
        raise VolumeError(f"{path} has {counted(len(candidates), 'image')}; name one with `key`: {there}")
    return next(iter(candidates))

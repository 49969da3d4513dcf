"""Voxel sizes of both volumes, checked for what pairs need."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from emsr_fast.errors import UsageError, VolumeError
from emsr_fast.io.volume import SourceVolume
from emsr_fast.io.voxels import VoxelSize, described, multiplied
from emsr_fast.pair.find_field import Bounds
from emsr_fast.wording import quoted

_RATIO_OFF = 1.25  # factor by which the pixel ratio may differ from the scale: beyond it another scale is meant
_SQUARE = 0.01  # relative difference of y and x
_SPACING = 0.01  # relative difference of the slice spacings


@dataclass(frozen=True)
class Geometry:
    """Voxel sizes of both volumes that fit each other."""

    scale: int
    ratio: float  # HR px per LR px, as stated
    lr_voxel_nm: VoxelSize
    hr_voxel_nm: VoxelSize

    @property
    def voxels(self) -> dict[str, VoxelSize]:
        """Voxel sizes of the pairs: HR as it is, LR exactly ``scale`` times that in y and x."""
        return {"LR": multiplied(self.hr_voxel_nm, self.scale), "HR": self.hr_voxel_nm}


def geometry(
    lr: SourceVolume,
    hr: SourceVolume,
    scale: int,
    lr_voxel: str | None,
    hr_voxel: str | None,
    say: Callable[[str], None],
) -> Geometry:
    """Return the voxel sizes; given ones replace those in the files.

    Raises:
        UsageError: a given size cannot be read.
        VolumeError: a pixel size is unknown or not square, the ratio is far from ``scale``, or the slices are not
            equally far apart.
    """
    sizes, pixels = [], []
    for name, source, given in (("LR", lr, lr_voxel), ("HR", hr, hr_voxel)):
        size = _given(given, name, source.info.voxel_size_nm) if given else source.info.voxel_size_nm
        stated = "given" if given else source.info.voxel_size_from
        shape = " x ".join(map(str, source.shape))
        say(f"{name:<7} {source.info.path}: {shape} (Z, Y, X), {source.dtype.name}, {described(size)}, {stated}")
        for note in source.info.notes:
            say(f"note    {note}")
        _, y, x = size
        if y is None or x is None:
            raise VolumeError(
                f"{source.info.path} states no pixel size ({stated}); give it in nm: `{name.lower()}_voxel=Z,Y,X`"
            )
        if abs(y / x - 1) > _SQUARE:
            raise VolumeError(
                f"{source.info.path} has pixels of {y:g} x {x:g} nm (y, x); pairs need square ones: resample it, or "
                f"give `{name.lower()}_voxel` if that is wrong"
            )
        sizes.append(size)
        pixels.append(math.sqrt(y * x))
    ratio = pixels[0] / pixels[1]
    if not scale / _RATIO_OFF <= ratio <= scale * _RATIO_OFF:
        raise VolumeError(
            f"LR pixels of {pixels[0]:g} nm are {ratio:.3g} HR pixels of {pixels[1]:g} nm; pairs for x{scale} need "
            f"{scale / _RATIO_OFF:.3g} to {scale * _RATIO_OFF:.3g}: check the voxel sizes, or give another `scale`"
        )
    _check_spacing(lr, hr, sizes[0][0], sizes[1][0], say)
    return Geometry(scale, ratio, sizes[0], sizes[1])


def _check_spacing(
    lr: SourceVolume, hr: SourceVolume, first: float | None, second: float | None, say: Callable[[str], None]
) -> None:
    if min(lr.shape[0], hr.shape[0]) == 1:
        return
    if first is None or second is None:
        say("note    slice spacing not stated for both: taken as equal; slices that do not fit are rejected")
    elif abs(first / second - 1) > _SPACING:
        raise VolumeError(
            f"the slices are {first:g} nm apart in {lr.info.path} and {second:g} nm in {hr.info.path}; pairs need "
            "the same "
            "sections: give `lr_voxel` or `hr_voxel` if that is wrong"
        )


def _given(text: str, name: str, stated: VoxelSize) -> VoxelSize:
    """Return the voxel size in nm from "Z,Y,X" or "XY"."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 3) or not all(math.isfinite(n) and n > 0 for n in numbers):
        raise UsageError(
            f"`{name.lower()}_voxel` is {quoted(text)}; give Z,Y,X in nm such as 50,15,15, or the pixel size alone "
            "such as 15"
        )
    return (numbers[0], numbers[1], numbers[2]) if len(numbers) == 3 else (stated[0], numbers[0], numbers[0])


def bounds_of(shapes: Geometry, max_angle: float, max_magnification: float) -> Bounds:
    """Return the bounds of the search, given degrees and per cent."""
    return Bounds(shapes.ratio, max_angle, max_magnification / 100)

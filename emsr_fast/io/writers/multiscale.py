"""The geometry of a multiscale OME-Zarr: its levels, their chunks and shards, and its metadata."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from emsr_fast.io.selection import ZYX
from emsr_fast.io.volume import TargetSpec

VERSIONS = ("0.5", "0.4")
_SMALLEST_LEVEL = 1024  # px: a level whose slices are no larger fits on a screen
_CHUNK_SIDE = {"0.5": 256, "0.4": 512}  # px; without shards every chunk is a file, so they are larger
_ISOTROPIC = math.sqrt(2)  # voxels with sides within this ratio are as good as cubes


@dataclass(frozen=True)
class Level:
    """One level of the pyramid, in its own voxels."""

    shape: ZYX
    factor: ZYX  # voxels of the level before that one voxel is the mean of
    shrink: ZYX  # the same in voxels of level 0
    shard: ZYX
    chunk: ZYX

    @property
    def grid(self) -> ZYX:
        """How many shards there are along each axis."""
        z, y, x = (-(-size // side) for size, side in zip(self.shape, self.shard, strict=True))
        return (z, y, x)

    def indices(self) -> Iterator[ZYX]:
        """Yield the index of every shard: columns first, then rows, then slices."""
        deep, tall, wide = self.grid
        yield from itertools.product(range(deep), range(tall), range(wide))

    def place(self, index: ZYX) -> tuple[slice, slice, slice]:
        """Return the voxels of shard ``index``."""
        z, y, x = (
            slice(at * side, min((at + 1) * side, size))
            for at, side, size in zip(index, self.shard, self.shape, strict=True)
        )
        return (z, y, x)


def levels_of(spec: TargetSpec, shard: ZYX, version: str, *, pyramid: bool = True) -> list[Level]:
    """Return the levels of a volume, full resolution first.

    Each level halves y and x. It halves z, too, if voxels would else be longer in y and x than in z. The last level is
    the first one whose slices have no side above 1024 px. Shards have the same sides at every level, so that a shard is
    the mean of whole shards of the level before.

    Args:
        shard: the voxels that one task writes at full resolution.
    """
    shape = spec.shape
    shard = _clipped(shard, shape)
    chunk = (shard[0], _divisor(shard[1], _CHUNK_SIDE[version]), _divisor(shard[2], _CHUNK_SIDE[version]))
    one = (1, 1, 1)
    levels = [Level(shape, one, one, shard, chunk)]
    while pyramid and max(shape[1:]) > _SMALLEST_LEVEL:
        shrink = levels[-1].shrink
        factor = (2 if shape[0] > 1 and _is_flat(spec, shrink) else 1, 2, 2)
        shape = _times(shape, factor, up=True)
        shrink = _times(shrink, factor)
        levels.append(Level(shape, factor, shrink, _whole_chunks(shard, chunk, shape), chunk))
    return levels


def _is_flat(spec: TargetSpec, shrink: ZYX) -> bool:
    z, y, x = spec.voxel_size_nm
    if z is None or y is None or x is None:
        return False
    return z * shrink[0] <= _ISOTROPIC * min(y * shrink[1], x * shrink[2])


def _times(shape: ZYX, factor: ZYX, *, up: bool = False) -> ZYX:
    z, y, x = (-(-side // f) if up else side * f for side, f in zip(shape, factor, strict=True))
    return (z, y, x)


def _clipped(shard: ZYX, shape: ZYX) -> ZYX:
    z, y, x = (min(side, size) for side, size in zip(shard, shape, strict=True))
    return (z, y, x)


def _whole_chunks(shard: ZYX, chunk: ZYX, shape: ZYX) -> ZYX:
    z, y, x = (min(side, -(-size // part) * part) for side, part, size in zip(shard, chunk, shape, strict=True))
    return (z, y, x)


def _divisor(side: int, wanted: int) -> int:
    """Return the divisor of ``side`` that is nearest to ``wanted``, as a ratio."""
    divisors = [part for part in range(1, math.isqrt(side) + 1) if side % part == 0]
    return min((d for part in divisors for d in (part, side // part)), key=lambda d: (abs(math.log(d / wanted)), d))


def attributes(spec: TargetSpec, levels: list[Level], title: str, version: str) -> dict[str, Any]:
    """Return the group's attributes: OME-Zarr metadata of ``version``, and the provenance under "emsr_fast"."""
    axes, scales, shifts = [], [], spec.first_centre
    in_voxels = (1.0, 1 / spec.scale, 1 / spec.scale)
    for name, size, scale in zip("zyx", spec.voxel_size_nm, in_voxels, strict=True):
        # no unit: relative to one voxel of the input, which is all that is known
        axes.append({"name": name, "type": "space"} | ({} if size is None else {"unit": "nanometer"}))
        scales.append(scale if size is None else size)
    datasets = []
    for number, level in enumerate(levels):
        # the centre of a mean lies in the middle of what it is the mean of
        moved = [shift + scale * (f - 1) / 2 for shift, scale, f in zip(shifts, scales, level.shrink, strict=True)]
        transforms: list[dict[str, Any]] = [
            {"type": "scale", "scale": [scale * f for scale, f in zip(scales, level.shrink, strict=True)]}
        ]
        if any(moved):
            transforms.append({"type": "translation", "translation": moved})
        datasets.append({"path": str(number), "coordinateTransformations": transforms})
    multiscale: dict[str, Any] = {"name": title, "axes": axes, "datasets": datasets}
    if len(levels) > 1:
        multiscale["type"] = "mean"
    known = any(size is not None for size in spec.voxel_size_nm)
    own = {"voxel_size_nm": list(spec.voxel_size_nm) if known else None, **spec.provenance}
    if version == "0.4":
        return {"multiscales": [{"version": "0.4", **multiscale}], "emsr_fast": own}
    return {"ome": {"version": "0.5", "multiscales": [multiscale]}, "emsr_fast": own}

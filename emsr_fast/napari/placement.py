"""Where a volume lies in napari's world: its voxel size, and the centre of its first voxel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zarr

from emsr_fast.io.provenance import read_provenance
from emsr_fast.io.readers.zarr import ContainedStore
from emsr_fast.io.volume import SourceVolume
from emsr_fast.io.voxels import nanometres

WorldZYX = tuple[float, float, float]


@dataclass(frozen=True)
class Placement:
    """World coordinate = ``translate`` + index * ``scale``; z, y, x. Indices are those of pixel centres."""

    scale: WorldZYX
    translate: WorldZYX
    units: tuple[str, str, str]  # "nm", or "pixel" where no size is known

    def part(self, corner: WorldZYX, magnification: int) -> Placement:
        """Return the placement of a result: a part that begins at voxel ``corner``, y and x magnified."""
        # the first small pixel lies before the centre of the large one that it is part of
        before = (1 - magnification) / (2 * magnification)
        factors = (1, magnification, magnification)
        starts = (corner[0], corner[1] + before, corner[2] + before)
        z, y, x = (
            (size / factor, first + size * start)
            for size, factor, first, start in zip(self.scale, factors, self.translate, starts, strict=True)
        )
        return Placement((z[0], y[0], x[0]), (z[1], y[1], x[1]), self.units)


def placement_of(source: SourceVolume) -> Placement:
    """Return where ``source`` lies.

    An OME-Zarr states its place. Outputs of ``infer`` in other formats state their part of the input, so they are laid
    over it. Everything else begins at 0. An axis without a voxel size counts in pixels of the input.
    """
    path = Path(source.info.path)
    if path.is_dir() and (found := _of_zarr(_attributes(path))):
        return found
    made = read_provenance(path)
    magnification = made.scale or 1
    known = source.info.voxel_size_nm
    sizes = [
        1.0 if size is None else size * factor
        for size, factor in zip(known, (1, magnification, magnification), strict=True)
    ]
    z, y, x = ("pixel" if size is None else "nm" for size in known)
    starts = [span[0] if span else 0 for span in (made.slices, made.rows, made.columns)]
    input_placement = Placement((sizes[0], sizes[1], sizes[2]), (0.0, 0.0, 0.0), (z, y, x))
    return input_placement.part((starts[0], starts[1], starts[2]), magnification)


def _attributes(path: Path) -> Mapping[str, Any]:
    try:
        found = dict(zarr.open_group(ContainedStore(path, read_only=True), mode="r").attrs)
    except Exception:  # no group: a plain array, or another format's folder
        return {}
    ome = found.get("ome", found)
    return ome if isinstance(ome, Mapping) else {}


def _of_zarr(attributes: Mapping[str, Any]) -> Placement | None:
    """Return the placement of the first level of an image, None if there is no image."""
    if not attributes.get("multiscales"):
        return None
    image = attributes["multiscales"][0]
    axes = image["axes"]
    scales, shifts = [1.0] * len(axes), [0.0] * len(axes)
    for part in (image["datasets"][0], image):
        for transform in part.get("coordinateTransformations") or []:
            values = transform.get(transform["type"])
            if transform["type"] == "scale":
                scales = [one * other for one, other in zip(scales, values, strict=True)]
                shifts = [one * other for one, other in zip(shifts, values, strict=True)]
            elif transform["type"] == "translation":
                shifts = [one + other for one, other in zip(shifts, values, strict=True)]
    placed = {"z": (1.0, 0.0, "pixel")}
    for axis, scale, shift in zip(axes, scales, shifts, strict=True):
        in_nm = nanometres(1.0, axis.get("unit") or "")
        placed[axis["name"]] = (scale * (in_nm or 1), shift * (in_nm or 1), "nm" if in_nm else "pixel")
    z, y, x = (placed[name] for name in "zyx")
    return Placement((z[0], y[0], x[0]), (z[1], y[1], x[1]), (z[2], y[2], x[2]))

"""OME-Zarr 0.5 in: level 0 of a folder with one grey image, read block by block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from emsr_fast.errors import VolumeError
from emsr_fast.volume.formats.base import SourceVolume, VolumeInfo, check_pixels
from emsr_fast.volume.voxels import VoxelSize, nanometres


def open_source(path: Path) -> SourceVolume:
    """Return the OME-Zarr image at ``path``, opened for reading."""
    return OmeZarrSource(path)


class OmeZarrSource(SourceVolume):
    """The full-resolution level of an OME-Zarr 0.5 image as one grey stack."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            group = zarr.open_group(str(path), mode="r", zarr_format=3)
            multiscale, version = _multiscale(dict(group.attrs), path)
            level = multiscale["datasets"][0]
            array = group[level["path"]]
            axes = [{"name": axis["name"], "unit": axis.get("unit") or ""} for axis in multiscale["axes"]]
            names = "".join(axis["name"] for axis in axes)
            if not isinstance(array, zarr.Array) or array.ndim != len(axes):
                raise VolumeError(f"{path}: level {level['path']!r} is no array with axes {names}; write it again")
            scales, moved = _transforms([level, multiscale], len(axes))
        except VolumeError:
            raise
        # zarr and pydantic raise many kinds for what is one thing to the user
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise VolumeError(f"{path} cannot be read as OME-Zarr 0.5: {reason}; check how it was written") from error
        self._array = array
        self._order = names
        shape = _stack_shape(names, array.shape, path)
        self._dtype = np.dtype(array.dtype).newbyteorder("=")
        notes = list(check_pixels(shape, self._dtype, path))
        if moved:
            notes.append("it has a translation, which infer does not carry over")
        voxel_size_nm, voxel_notes = _voxel_size(axes, scales)
        chunks = dict(zip(names, array.chunks, strict=True))
        self.info = VolumeInfo(
            path=path,
            format=f"OME-Zarr {version}",
            shape=shape,
            dtype=self._dtype,
            axes=names.upper(),
            chunks=(chunks.get("z", 1), chunks["y"], chunks["x"]),
            voxel_size_nm=voxel_size_nm,
            voxel_size_from="OME-Zarr scale and unit" if any(voxel_size_nm) else "not stated in the file",
            notes=(*notes, *voxel_notes),
        )

    def read(self, z: int, rows: slice, cols: slice) -> np.ndarray:
        """Return pixels of slice ``z``, (rows, cols)."""
        where: dict[str, int | slice] = {"z": z, "y": rows, "x": cols}
        try:
            block = np.asarray(self._array[tuple(where.get(name, 0) for name in self._order)])
        except MemoryError:
            raise
        except Exception as error:  # each codec has its own
            raise VolumeError(f"slice {z} of {self._path} cannot be decoded: {error}; write it again") from error
        return block.astype(self._dtype, copy=False)

    def close(self) -> None:
        """Nothing to close: chunks are opened one by one."""


def _multiscale(attributes: Mapping[str, Any], path: Path) -> tuple[Mapping[str, Any], str]:
    ome = attributes.get("ome")
    if not isinstance(ome, Mapping) or not ome.get("multiscales"):
        older = " (it looks like OME-Zarr 0.4 or older)" if "multiscales" in attributes else ""
        raise VolumeError(f"{path} is a Zarr folder without an OME-Zarr 0.5 image{older}; give the image's own folder")
    return ome["multiscales"][0], str(ome.get("version", "0.5"))


def _stack_shape(names: str, shape: Sequence[int], path: Path) -> tuple[int, int, int]:
    sizes = dict(zip(names, (int(side) for side in shape), strict=True))
    if not names.endswith("yx"):
        raise VolumeError(f"{path} has axes {names}, which do not end in y, x; transpose it first")
    for name, size in sizes.items():
        if name not in "zyx" and size != 1:
            raise VolumeError(
                f"{path} has {size} along axis {name!r}; expected one grey stack: save one of them by itself"
            )
    return (sizes.get("z", 1), sizes["y"], sizes["x"])


def _transforms(parts: Sequence[Mapping[str, Any]], dimensions: int) -> tuple[list[float], bool]:
    """Return the product of all scales, one per axis, and whether anything is translated."""
    scales, moved = [1.0] * dimensions, False
    for part in parts:
        for transform in part.get("coordinateTransformations") or []:
            if transform["type"] == "scale":
                scales = [one * float(other) for one, other in zip(scales, transform["scale"], strict=True)]
            elif transform["type"] == "translation":
                moved = moved or any(transform["translation"])
    return scales, moved


def _voxel_size(axes: Sequence[Mapping[str, str]], scales: Sequence[float]) -> tuple[VoxelSize, list[str]]:
    sizes: dict[str, float | None] = {}
    notes = []
    for axis, scale in zip(axes, scales, strict=True):
        # a scale without unit is a ratio, not a length
        sizes[axis["name"]] = nanometres(scale, axis["unit"]) if axis["unit"] else None
        if axis["unit"] and axis["name"] in "zyx" and sizes[axis["name"]] is None:
            notes.append(f"scale of axis {axis['name']} ignored: {scale} {axis['unit']} is not a length")
    return (sizes.get("z"), sizes["y"], sizes["x"]), notes

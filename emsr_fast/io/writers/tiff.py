"""Writes OME-TIFF, as BigTIFF if classic TIFF is too small."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tifffile

from emsr_fast.io.destination import printable
from emsr_fast.io.volume import TargetSpec, TargetVolume
from emsr_fast.io.voxels import VoxelSize, meant
from emsr_fast.io.writers.raw import RawTarget

# classic TIFF counts bytes in 32 bits; what each page adds to its pixels stays below this
_CLASSIC_LIMIT = 2**32 - 2**16
_BYTES_PER_PAGE_ENTRY = 512


def create_target(path: Path, spec: TargetSpec, *, overwrite: bool) -> TargetVolume:
    """Return a new TIFF of its full size under a temporary name beside ``path``."""
    return TiffTarget(path, spec, overwrite=overwrite)


class TiffTarget(RawTarget):
    """An uncompressed OME-TIFF; BigTIFF when classic TIFF cannot hold it."""

    def __init__(self, path: Path, spec: TargetSpec, *, overwrite: bool) -> None:
        super().__init__(path, spec, spec.dtype, overwrite=overwrite)

    def _file_bytes(self) -> int:
        depth, height, width = self.spec.shape
        return depth * (height * width * self.spec.dtype.itemsize + _BYTES_PER_PAGE_ENTRY)

    def _lay_out(self, path: Path) -> int:
        """Write headers, page entries and metadata around a hole for the pixels; return the first pixel's offset."""
        spec, title = self.spec, printable(self._staging.final.name)
        with tifffile.TiffWriter(path, bigtiff=self._file_bytes() > _CLASSIC_LIMIT, ome=True) as file:
            written = file.write(
                shape=spec.shape,
                dtype=spec.dtype,
                photometric="minisblack",
                returnoffset=True,
                software=str(spec.provenance.get("software", "emsr_fast")),
                metadata={
                    "axes": "ZYX",
                    "Name": title,
                    # by default it holds the time: the same run shall give the same bytes
                    "UUID": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{title} {sorted(spec.provenance.items())}")),
                    **_physical_sizes(spec.voxel_size_nm),
                    "Plane": _positions(spec),
                    "MapAnnotation": {"Namespace": "emsr_fast", **flattened(spec.provenance)},
                },
                **_resolution(spec.voxel_size_nm),
            )
        assert written is not None  # returnoffset asks for it
        return written[0]


def _physical_sizes(voxel_size_nm: VoxelSize) -> dict[str, float | str]:
    sizes: dict[str, float | str] = {}
    for axis, size in zip("ZYX", voxel_size_nm, strict=True):
        if size is not None:
            sizes |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "nm"}
    return sizes


def _positions(spec: TargetSpec) -> dict[str, list[float] | list[str]]:
    """Return the position of each slice for OME's planes; along an axis of unknown size in voxels of the input."""
    depth = spec.shape[0]
    positions: dict[str, list[float] | list[str]] = {}
    for axis, first, size in zip("ZYX", spec.first_centre, spec.voxel_size_nm, strict=True):
        step = (1.0 if size is None else size) if axis == "Z" else 0.0
        positions[f"Position{axis}"] = [meant(first + step * z) for z in range(depth)]
        positions[f"Position{axis}Unit"] = ["reference frame" if size is None else "nm"] * depth
    return positions


def _resolution(voxel_size_nm: VoxelSize) -> dict[str, Any]:
    """Return the resolution tags, which ImageJ reads, in pixels per cm; none if y or x is unknown."""
    _, y, x = voxel_size_nm
    if y is None or x is None:
        return {}
    return {"resolution": (1e7 / x, 1e7 / y), "resolutionunit": "CENTIMETER"}


def flattened(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Return nested settings as text under dotted names, for OME's key-value annotations."""
    flat: dict[str, str] = {}
    for name, value in provenance.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": text for inner, text in flattened(value).items()}
        else:
            flat[name] = "" if value is None else str(value)
    return flat

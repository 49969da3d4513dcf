"""OME-TIFF out: an empty file of the final size is laid out first, blocks then go to their byte offsets."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from emsr_fast.volume.formats.base import TargetSpec, TargetVolume, check_block
from emsr_fast.volume.formats.destination import Staging, check_space, printable, system_errors
from emsr_fast.volume.voxels import VoxelSize

# classic TIFF counts bytes in 32 bits; what each page adds to its pixels stays below this
_CLASSIC_LIMIT = 2**32 - 2**16
_BYTES_PER_PAGE_ENTRY = 512


def create_target(path: Path, spec: TargetSpec, *, overwrite: bool) -> TargetVolume:
    """Return a new TIFF of its full size under a temporary name beside ``path``."""
    return TiffTarget(path, spec, overwrite=overwrite)


class TiffTarget(TargetVolume):
    """An uncompressed OME-TIFF; BigTIFF when classic TIFF cannot hold it."""

    def __init__(self, path: Path, spec: TargetSpec, *, overwrite: bool) -> None:
        self.spec = spec
        self._staging = Staging(path, overwrite=overwrite)
        self._descriptor = -1
        try:
            check_space(self._staging.final, _file_bytes(spec))
            with system_errors(self._staging.final):
                self._first_pixel = _lay_out(self._staging.path, spec, title=printable(self._staging.final.name))
                self._descriptor = os.open(self._staging.path, os.O_RDWR)
        except BaseException:
            self.abort()
            raise

    def write(self, z: int, rows: slice, cols: slice, block: np.ndarray) -> None:
        """Write ``block``, (rows, cols), into slice ``z``."""
        check_block(self.spec, z, rows, cols, block)
        _, height, width = self.spec.shape
        lines = np.ascontiguousarray(block)
        if block.shape[1] == width:
            lines = lines.reshape(1, -1)  # whole rows follow each other in the file too
        offset = self._first_pixel + ((z * height + rows.start) * width + cols.start) * lines.itemsize
        with system_errors(self._staging.final):
            for number, line in enumerate(lines):
                _write_all(self._descriptor, memoryview(line).cast("B"), offset + number * width * lines.itemsize)

    def commit(self) -> None:
        """Flush the file to the disk and give it its final name."""
        with system_errors(self._staging.final):
            # a full quota on a network disk may show only here
            os.fsync(self._descriptor)
            self._close()
        self._staging.publish()

    def abort(self) -> None:
        """Remove the unfinished file."""
        self._close()
        self._staging.discard()

    def _close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


def _file_bytes(spec: TargetSpec) -> int:
    depth, height, width = spec.shape
    return depth * (height * width * spec.dtype.itemsize + _BYTES_PER_PAGE_ENTRY)


def _lay_out(path: Path, spec: TargetSpec, *, title: str) -> int:
    """Write headers, page entries and metadata around a hole for the pixels; return the first pixel's offset."""
    with tifffile.TiffWriter(path, bigtiff=_file_bytes(spec) > _CLASSIC_LIMIT, ome=True) as file:
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
                "MapAnnotation": {"Namespace": "emsr_fast", **_flat(spec.provenance)},
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


def _resolution(voxel_size_nm: VoxelSize) -> dict[str, Any]:
    """Return the resolution tags, which ImageJ reads, in pixels per cm; none where y or x is unknown."""
    _, y, x = voxel_size_nm
    if y is None or x is None:
        return {}
    return {"resolution": (1e7 / x, 1e7 / y), "resolutionunit": "CENTIMETER"}


def _flat(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Return nested settings as text under dotted names, which is what OME's key-value annotations hold."""
    flat: dict[str, str] = {}
    for name, value in provenance.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": text for inner, text in _flat(value).items()}
        else:
            flat[name] = "" if value is None else str(value)
    return flat


def _write_all(descriptor: int, data: memoryview, offset: int) -> None:
    """Write all of ``data``: a nearly full disk takes a part of it first and fails the next time."""
    while data:
        count = os.pwrite(descriptor, data, offset)
        data, offset = data[count:], offset + count

"""OME-Zarr 0.5 out: one level, chunks that no two tiles share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec

from emsr_fast.volume.formats.base import TargetSpec, TargetVolume, check_block
from emsr_fast.volume.formats.destination import Staging, printable, shielded_from_signals, system_errors

# about a megabyte of 8-bit pixels: small enough to browse, large enough not to drown in files
_LARGEST_CHUNK = 1024


def create_target(path: Path, spec: TargetSpec, *, overwrite: bool) -> TargetVolume:
    """Return a new OME-Zarr under a temporary name beside ``path``."""
    return OmeZarrTarget(path, spec, overwrite=overwrite)


class OmeZarrTarget(TargetVolume):
    """A Zarr v3 group with one compressed array and OME-Zarr 0.5 metadata."""

    def __init__(self, path: Path, spec: TargetSpec, *, overwrite: bool) -> None:
        self.spec = spec
        self._staging = Staging(path, overwrite=overwrite)
        try:
            # zarr writes in threads of its own: interrupted here, one could go on after the clean-up
            with system_errors(self._staging.final), shielded_from_signals():
                group = zarr.create_group(
                    str(self._staging.path),
                    zarr_format=3,
                    attributes=_attributes(spec, printable(self._staging.final.name)),
                )
                self._array = group.create_array(
                    "0",
                    shape=spec.shape,
                    chunks=_chunks(spec),
                    dtype=spec.dtype,
                    dimension_names=["z", "y", "x"],
                    compressors=BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),
                )
        except BaseException:
            self.abort()
            raise

    def write(self, z: int, rows: slice, cols: slice, block: np.ndarray) -> None:
        """Write ``block``, (rows, cols), into slice ``z``."""
        check_block(self.spec, z, rows, cols, block)
        with system_errors(self._staging.final), shielded_from_signals():
            self._array[z, rows, cols] = block

    def commit(self) -> None:
        """Give the folder its final name."""
        self._staging.publish()

    def abort(self) -> None:
        """Remove the unfinished folder."""
        self._staging.discard()


def _chunks(spec: TargetSpec) -> tuple[int, int, int]:
    """Return chunk sides that divide the blocks written, so that each chunk is written once and by one tile."""
    side = max(size for size in range(1, min(spec.block, _LARGEST_CHUNK) + 1) if spec.block % size == 0)
    _, height, width = spec.shape
    return (1, min(side, height), min(side, width))


def _attributes(spec: TargetSpec, title: str) -> dict[str, Any]:
    axes, scales, shifts = [], [], []
    # pixel centres are at whole coordinates, so the first HR pixel lies before the first LR pixel's centre
    before = (1 - spec.scale) / (2 * spec.scale)
    in_voxels = ((1.0, spec.first_slice), (1 / spec.scale, before), (1 / spec.scale, before))
    for name, size, (scale, shift) in zip("zyx", spec.voxel_size_nm, in_voxels, strict=True):
        if size is None:
            # no unit: relative to one voxel of the input, which is all that is known
            axes.append({"name": name, "type": "space"})
            scales.append(scale)
            shifts.append(float(shift))
        else:
            axes.append({"name": name, "type": "space", "unit": "nanometer"})
            scales.append(size)
            shifts.append(float(shift) * size / scale)
    transforms: list[dict[str, Any]] = [{"type": "scale", "scale": scales}]
    if any(shifts):
        transforms.append({"type": "translation", "translation": shifts})
    multiscale = {
        "name": title,
        "axes": axes,
        "datasets": [{"path": "0", "coordinateTransformations": transforms}],
    }
    known = any(size is not None for size in spec.voxel_size_nm)
    return {
        "ome": {"version": "0.5", "multiscales": [multiscale]},
        "emsr_fast": {"voxel_size_nm": list(spec.voxel_size_nm) if known else None, **spec.provenance},
    }

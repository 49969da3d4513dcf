"""Writing from napari: one grey image layer, with its voxel size, into any format that ``infer`` writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from emsr_fast import __version__
from emsr_fast.errors import UsageError
from emsr_fast.io.registry import create_target
from emsr_fast.io.volume import KEPT_DTYPES, TargetSpec
from emsr_fast.napari.layers import is_upright, voxel_size_of


def write_image(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write an image layer, (Y, X) or (Z, Y, X), slice by slice; return the paths written.

    Args:
        path: a new file or folder; its suffix chooses the format.
        data: of a layer; of a multiscale layer, the largest level is written.
        attributes: of the layer: scale and units become the voxel size. Its place in the world is not written.

    Raises:
        UsageError: it is no grey volume, it is rotated or sheared, or its dtype is not one that is written.
        VolumeError: the path is taken or not writable, or the disk is full.
    """
    if not hasattr(data, "shape"):
        data = data[0]
    if attributes.get("rgb") or data.ndim not in (2, 3):
        kind = "a colour image" if attributes.get("rgb") else f"an image with {data.ndim} axes"
        raise UsageError(f"the layer is {kind}; give a grey one with axes Y, X or Z, Y, X")
    dtype = np.dtype(data.dtype)
    if dtype.name not in KEPT_DTYPES:
        raise UsageError(f"the layer is {dtype.name}, written are {', '.join(KEPT_DTYPES)}; convert it first")
    if not is_upright(attributes):
        raise UsageError("the layer is rotated or sheared, which a file cannot store; set its rotate and shear to 0")
    volume = data if data.ndim == 3 else data[None]
    depth, height, width = (int(side) for side in volume.shape)
    spec = TargetSpec(
        shape=(depth, height, width),
        dtype=dtype.newbyteorder("="),
        scale=1,
        voxel_size_nm=voxel_size_of(attributes, data.ndim),
        provenance={"software": f"emsr_fast {__version__}, from napari"},
    )
    with create_target(Path(path), spec) as target:
        for z in range(depth):
            # a part of a slice at a time, as large as the target's blocks
            for top in range(0, height, spec.block):
                rows = slice(top, min(top + spec.block, height))
                lines = np.asarray(volume[z, rows]).astype(spec.dtype, copy=False)
                for left in range(0, width, spec.block):
                    cols = slice(left, min(left + spec.block, width))
                    target.write(z, rows, cols, lines[:, cols])
        target.commit()
    return [path]

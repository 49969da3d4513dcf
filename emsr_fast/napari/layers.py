"""Layers of napari and volumes: from a layer's options to a voxel size, and from a volume to options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from emsr_fast.io.voxels import VoxelSize, described, nanometres
from emsr_fast.napari.placement import Placement

METADATA = "emsr_fast"  # what a layer keeps of its file


def map_options(name: str) -> dict[str, Any]:
    """Return the options that show the map of trust ``name``."""
    if name == "residual":
        # in standard deviations of the noise, of either sign
        return {"colormap": "twilight_shifted", "contrast_limits": (-5.0, 5.0)}
    return {"colormap": "magma", "blending": "additive"}


def layer_options(placement: Placement) -> dict[str, Any]:
    """Return ``placement`` as options of a layer."""
    return {"scale": placement.scale, "translate": placement.translate, "units": placement.units}


def described_file(metadata: Mapping[str, Any]) -> str:
    """Return in lines what the file of a layer says of itself; "" for a layer that this plugin has not read.

    Args:
        metadata: the layer's.
    """
    info = metadata.get(METADATA)
    if not isinstance(info, Mapping):
        return ""
    made_by = [f"made by {info['instrument']}"] if info["instrument"] else []
    z, y, x = info["voxel_size_nm"]
    # advice behind "; " is about options, which the plugin has not
    notes = [str(note).partition("; ")[0] for note in info["notes"]]
    return "\n".join([info["format"], *made_by, f"voxel {described((z, y, x))}, {info['voxel_size_from']}", *notes])


def is_upright(attributes: dict[str, Any]) -> bool:
    """Return whether a layer of ``attributes`` has its axes along those of the world."""
    rotate, shear, affine = (attributes.get(name) for name in ("rotate", "shear", "affine"))
    return (
        (rotate is None or _is_identity(rotate))
        and (shear is None or not np.any(shear))
        and (affine is None or _is_identity(affine))
    )


def _is_identity(matrix: Any) -> bool:
    values = np.asarray(getattr(matrix, "affine_matrix", matrix), dtype=np.float64)
    return values.ndim == 2 and bool(np.array_equal(values, np.eye(len(values))))


def voxel_size_of(attributes: dict[str, Any], axes: int) -> VoxelSize:
    """Return the voxel size in nm of a layer of 2 or 3 ``axes``; None for axes whose unit is no length."""
    scale, units = attributes.get("scale"), attributes.get("units")
    scale = [1.0] * axes if scale is None else [float(size) for size in scale]
    units = ["pixel"] * axes if units is None else [str(unit) for unit in units]
    sizes = [nanometres(size, unit) for size, unit in zip(scale, units, strict=True)]
    return (sizes[0] if axes == 3 else None, sizes[-2], sizes[-1])

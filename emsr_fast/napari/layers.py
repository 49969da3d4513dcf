"""Layers of napari and volumes: from a layer's options to a voxel size, and from a volume to options."""

from __future__ import annotations

from typing import Any

import numpy as np

from emsr_fast.io.voxels import VoxelSize, nanometres
from emsr_fast.napari.placement import Placement


def map_options(name: str) -> dict[str, Any]:
    """Return the options that show the map of trust ``name``."""
    if name == "residual":
        # in standard deviations of the noise, of either sign
        return {"colormap": "twilight_shifted", "contrast_limits": (-5.0, 5.0)}
    return {"colormap": "magma", "blending": "additive"}


def layer_options(placement: Placement) -> dict[str, Any]:
    """Return ``placement`` as options of a layer."""
    return {"scale": placement.scale, "translate": placement.translate, "units": placement.units}


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

"""OME-Zarr metadata: the levels of a multiscale image, their axes and voxel sizes, checked by ome-zarr-models."""

from __future__ import annotations

import posixpath
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel, ValidationError

from emsr_fast.errors import VolumeError
from emsr_fast.io.axes import Layout
from emsr_fast.io.voxels import VoxelSize, amount

# before 0.4 there were no scales, before 0.3 all images had these axes
_OLD_AXES = "tczyx"


@dataclass(frozen=True)
class Multiscale:
    """A multiscale image: one image, stored at several resolutions."""

    version: str
    axes: str | None  # one letter each, "?" for a name that has none; None where all unnamed
    units: tuple[str, ...]
    levels: Mapping[str, tuple[tuple[float, ...], bool]]  # by path: scale of each axis, whether it is translated
    notes: tuple[str, ...] = ()

    def voxel_size(self, level: str, layout: Layout) -> tuple[VoxelSize, tuple[str, ...]]:
        """Return the voxel size of ``level`` in nm, and notes on values that are ignored."""
        scales, moved = self.levels[level]
        notes = ["it has a translation, which infer does not carry over"] if moved else []
        sizes: list[float | None] = []
        for name, scale, unit in zip(layout.names, scales, self.units, strict=False):
            # a scale without unit is a ratio, not a length
            known = unit and name in "ZYX"
            sizes.append(amount(scale, unit, f"scale of axis {name}", notes) if known else None)
        found = layout.in_order(sizes, None) if len(sizes) == len(layout.names) else (None, None, None)
        return found, tuple(notes)


def multiscale_of(attributes: Mapping[str, Any], path: PurePath, listing: str | None = None) -> Multiscale | None:
    """Return the multiscale image that a group's attributes describe; None if there is none.

    Args:
        path: for messages.
        listing: a level; of several images the first one that lists it is used, else the first of all.

    Raises:
        VolumeError: they are not valid OME-Zarr, or of an unknown version.
    """
    from ome_zarr_models.v04.multiscales import Multiscale as V04
    from ome_zarr_models.v05.multiscales import Multiscale as V05

    ome = attributes.get("ome")
    inside = _multiscale_metadata(attributes)
    images = inside.get("multiscales")
    if not images:
        return None
    if not isinstance(images, Sequence) or not isinstance(images[0], Mapping):
        raise VolumeError(f"{path} has multiscales that are not a list of images; {_ADVICE}")
    number = next((number for number, one in enumerate(images) if listing in _paths_of(one)), 0)
    image = images[number]
    which = f"number {number + 1}" if number else "the first"
    notes = (f"{which} of {len(images)} multiscale images",) if len(images) > 1 else ()
    version = str(ome.get("version", "0.5")) if inside is ome else str(image.get("version") or "0.4")
    model: type[BaseModel] = V05 if inside is ome else V04
    if version in ("0.1", "0.2", "0.3"):
        return _old(image, version, notes, path)
    if version not in ("0.4", "0.5"):
        raise VolumeError(f"{path} is OME-Zarr {version}; 0.4 and 0.5 are read: {_ADVICE}")
    return _checked(image, model, version, notes, path)


def datasets_of(attributes: Mapping[str, Any]) -> list[str]:
    """Return the paths of the levels that a group's attributes list, valid or not."""
    images = _multiscale_metadata(attributes).get("multiscales")
    return [path for image in images for path in _paths_of(image)] if isinstance(images, Sequence) else []


def _paths_of(image: Any) -> list[str]:
    datasets = image.get("datasets") if isinstance(image, Mapping) else None
    listed = datasets if isinstance(datasets, Sequence) else []
    return [_plain(str(dataset.get("path"))) for dataset in listed if isinstance(dataset, Mapping)]


def _plain(path: str) -> str:
    """Return the path of a level in its shortest form: "0" for "./0" and "0/"."""
    return posixpath.normpath(path)


def _multiscale_metadata(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    ome = attributes.get("ome")
    return ome if isinstance(ome, Mapping) else attributes


_ADVICE = "write it again, or name one array with `key` and its axes with `axes` to read it all the same"


def _checked(
    image: Mapping[str, Any], model: type[BaseModel], version: str, notes: tuple[str, ...], path: PurePath
) -> Multiscale:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is advised and not required
            valid: Any = model.model_validate(image)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise VolumeError(
            f"{path} is not valid OME-Zarr {version}: {where}{': ' if where else ''}{first['msg']}; {_ADVICE}"
        ) from error
    axes = [str(axis.name) for axis in valid.axes]
    levels = {}
    for dataset in valid.datasets:
        scales, moved = [1.0] * len(axes), False
        for transform in (*dataset.coordinateTransformations, *(valid.coordinateTransformations or ())):
            values = getattr(transform, transform.type, None)
            if values is None:
                raise VolumeError(f"{path} has its {transform.type} in a separate file; {_ADVICE}")
            if transform.type == "scale":
                scales = [one * float(other) for one, other in zip(scales, values, strict=True)]
            else:
                moved = moved or any(values)
        levels[_plain(dataset.path)] = (tuple(scales), moved)
    units = tuple(str(axis.unit or "") for axis in valid.axes)
    return Multiscale(version, _letters(axes), units, levels, notes)


def _old(image: Mapping[str, Any], version: str, notes: tuple[str, ...], path: PurePath) -> Multiscale:
    try:
        axes = [str(axis) for axis in image.get("axes", _OLD_AXES)]
        levels: dict[str, tuple[tuple[float, ...], bool]] = {
            _plain(str(one["path"])): ((), False) for one in image["datasets"]
        }
    except (KeyError, TypeError) as error:
        raise VolumeError(f"{path} is not valid OME-Zarr {version}: no datasets with a path; {_ADVICE}") from error
    return Multiscale(version, _letters(axes), (), levels, notes)


def _letters(axes: Sequence[str]) -> str:
    return "".join(name.upper() if len(name) == 1 and name.isalpha() else "?" for name in axes)

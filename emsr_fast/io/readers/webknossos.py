"""WEBKNOSSOS datasets in: a layer at one magnification, in WKW cubes or as Zarr or N5, at its place in the dataset."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from emsr_fast.errors import VolumeError
from emsr_fast.io.axes import Asked, chosen, layout_of
from emsr_fast.io.readers import tensorstore, zarr
from emsr_fast.io.readers.parts.array import ArraySource, check_chunk
from emsr_fast.io.readers.parts.extra import reading
from emsr_fast.io.readers.parts.files import read_part
from emsr_fast.io.readers.parts.wkw_files import WkwArray
from emsr_fast.io.volume import SourceVolume, VolumeInfo, check_pixels, pixel_dtype
from emsr_fast.io.voxels import VoxelSize, nanometres
from emsr_fast.reading import parse_json

PROPERTIES = "datasource-properties.json"
_MOST_BYTES = 2**26
_ZARR = ("zarr", "zarr3")
_XYZC = {"c": 0, "x": 1, "y": 2, "z": 3}


@dataclass(frozen=True)
class _Image:
    """A layer at one magnification."""

    layer: Mapping[str, Any]
    stored: Mapping[str, Any]  # what the dataset says of this magnification
    mag: tuple[int, int, int]  # voxels of the finest magnification in one of this, x, y, z

    @property
    def name(self) -> str:
        """The name of the layer and of its folder, "color/2-2-1"."""
        same = len(set(self.mag)) == 1
        return f"{self.layer['name']}/{self.mag[0] if same else '-'.join(map(str, self.mag))}"

    @property
    def box(self) -> tuple[tuple[int, int], ...]:
        """From where to before where it has voxels, along x, y and z."""
        box = self.layer["boundingBox"]
        sides = [int(box[side]) for side in ("width", "height", "depth")]
        firsts = [int(first) for first in box["topLeft"]]
        return tuple(
            (first // mag, -(-(first + side) // mag)) for first, side, mag in zip(firsts, sides, self.mag, strict=True)
        )


def open_source(path: Path, key: str | None, asked: Asked) -> SourceVolume:
    """Return the layer and magnification ``key``, such as "color/2", opened for reading.

    A layer's name alone stands for its finest magnification; None for the finest of the only layer that is an image.
    """
    with reading(path, "WEBKNOSSOS dataset"):
        properties = parse_json(read_part(path, path / PROPERTIES, path, _MOST_BYTES) or b"")
        images = _images(properties)
        image = images[_chosen(images, key, path)]
        if len(image.box) != 3 or any(not 0 <= first < stop for first, stop in image.box):
            raise VolumeError(f"{path}: the bounding box of {image.layer['name']!r} is {image.box}; check {PROPERTIES}")
        if image.layer.get("elementClass") == "uint24":
            raise VolumeError(f"{path}: layer {image.layer['name']!r} is in colour (uint24); export it as grey")
        folder, kind = _folder(image, path), str(image.layer.get("dataFormat"))
        source = _wkw(image, folder, path, asked) if kind == "wkw" else _other(image, folder, path, kind, asked)
        sizes = _voxel_size(properties, image)
        others = [name for name in images if name != image.name]
        notes = [f"{len(images)} images: {', '.join(images)}; another one with `key`"] if others else []
        info = replace(
            source.info,
            path=path,
            format=f"WEBKNOSSOS, {source.info.format}",
            key=image.name,
            voxel_size_nm=sizes,
            voxel_size_from=f"scale in {PROPERTIES}" if any(sizes) else f"not stated in {PROPERTIES}",
            notes=(*source.info.notes, *notes),
        )
        try:
            return _Box(source, info, image.box)
        except BaseException:
            source.close()
            raise


class _Box(SourceVolume):
    """The part of a source that the dataset's bounding box names."""

    def __init__(self, source: SourceVolume, info: VolumeInfo, box: tuple[tuple[int, int], ...]) -> None:
        (left, right), (top, bottom), (first, last) = box
        shape = (last - first, bottom - top, right - left)
        if any(stop > side for stop, side in zip((last, bottom, right), source.shape, strict=True)):
            raise VolumeError(
                f"{info.path}: the bounding box of {info.key} ends at {right}, {bottom}, {last} (x, y, z), but "
                f"{' x '.join(map(str, source.shape))} voxels (Z, Y, X) are stored; copy it again"
            )
        self.info = replace(info, shape=shape)
        self._source, self._first = source, (first, top, left)

    def read(self, z: int, rows: slice, cols: slice) -> np.ndarray:
        """Return pixels of slice ``z``, (rows, cols)."""
        first, top, left = self._first
        _, height, width = self.shape
        (above, below, _), (before, behind, _) = rows.indices(height), cols.indices(width)
        return self._source.read(z + first, slice(top + above, top + below), slice(left + before, left + behind))

    def limit_memory(self, most: int) -> int:
        """Hold ``most`` bytes of decoded chunks, or as little as possible; return how many it may hold at its peak."""
        return self._source.limit_memory(most)

    def close(self) -> None:
        """Close the files."""
        self._source.close()


def _images(properties: Mapping[str, Any]) -> dict[str, _Image]:
    """Return every layer at every magnification, the finest of each layer first."""
    found = []
    for layer in properties["dataLayers"]:
        for stored in layer.get("mags") or layer.get("wkwResolutions") or ():
            mag = stored.get("mag", stored.get("resolution"))
            x, y, z = (int(side) for side in (mag if isinstance(mag, list) else [mag] * 3))
            if min(x, y, z) < 1:
                raise ValueError(f"magnification {mag}")
            found.append(_Image(layer, stored, (x, y, z)))
    names = [str(layer["name"]) for layer in properties["dataLayers"]]
    found.sort(key=lambda image: (names.index(image.layer["name"]), image.mag))
    return {image.name: image for image in found}


def _chosen(images: Mapping[str, _Image], key: str | None, path: Path) -> str:
    finest: dict[str, str] = {}
    for name, image in images.items():
        finest.setdefault(str(image.layer["name"]), name)
    if key in finest:
        return finest[key]
    if key is None:
        grey = {layer: name for layer, name in finest.items() if images[name].layer.get("category") != "segmentation"}
        if len(grey) == 1:
            return next(iter(grey.values()))
    return chosen({name: _described(image) for name, image in images.items()}, key, path)


def _described(image: _Image) -> str:
    sides = " x ".join(str(stop - first) for first, stop in reversed(image.box))
    return f"{sides} {image.layer.get('elementClass')}"


def _folder(image: _Image, path: Path) -> Path:
    """Return where the pixels lie; what reads them refuses a place outside the dataset."""
    place = str(image.stored.get("path") or image.name)
    if re.match(r"[a-z0-9]+://", place):
        raise VolumeError(f"{path}: the pixels of {image.name} are on a server ({place}); give that address")
    return path / place


def _wkw(image: _Image, folder: Path, path: Path, asked: Asked) -> SourceVolume:
    ends = tuple(stop for _, stop in image.box)
    array = WkwArray(folder, path, (ends[0], ends[1], ends[2]))
    try:
        layout, words = layout_of(array.shape, path, asked=asked, stated="CXYZ")
        check_chunk((array.shape[0], *[array.block] * 3), array.dtype, path)
        notes = check_pixels(layout.stack, array.dtype, path)
        firsts = tuple(first for first, _ in image.box)
        told, absent = array.stored((firsts[0], firsts[1], firsts[2])).checked(folder, 0, "files")
        info = VolumeInfo(
            path=path,
            format="WKW",
            shape=layout.stack,
            dtype=pixel_dtype(array.dtype),
            axes=words,
            chunks=(array.block,) * 3,
            notes=(*notes, *told),
            absent=absent,
        )
        return ArraySource(array, layout, info, close=array.close)
    except BaseException:
        array.close()
        raise


def _other(image: _Image, folder: Path, path: Path, kind: str, asked: Asked) -> SourceVolume:
    key = folder.relative_to(path).as_posix()
    if ".." in key.split("/"):
        raise VolumeError(f"{path} names {key!r} as a part of it, which lies in another folder; move both into one")
    order = image.stored.get("axisOrder") or _XYZC
    names = "".join(sorted(order, key=lambda letter: int(order[letter]))).upper()
    named = replace(asked, axes=asked.axes or names)
    if kind in _ZARR:
        return zarr.open_source(path, key, named)
    if kind == "n5":
        return tensorstore.open_source(path, key, named)
    raise VolumeError(
        f"{path}: layer {image.layer['name']!r} has the format {kind!r}, which is not read; export it as Zarr"
    )


def _voxel_size(properties: Mapping[str, Any], image: _Image) -> VoxelSize:
    scale = properties.get("scale")
    if isinstance(scale, Mapping):
        factors, unit = scale.get("factor"), str(scale.get("unit", "nanometer"))
    else:
        factors, unit = scale, "nanometer"
    if not isinstance(factors, list) or len(factors) != 3:
        return (None, None, None)
    x, y, z = (nanometres(float(side) * mag, unit) for side, mag in zip(factors, image.mag, strict=True))
    return (z, y, x)

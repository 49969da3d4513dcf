"""CZI in (Zeiss), by libCZI: one scene and channel of a file; tiles of a mosaic are put together as the file says."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from emsr_fast.errors import VolumeError
from emsr_fast.io.axes import Asked, Layout, chosen, layout_of
from emsr_fast.io.readers.parts.array import ArraySource, check_chunk
from emsr_fast.io.readers.parts.czi_segments import check_segments
from emsr_fast.io.readers.parts.extra import needed, reading
from emsr_fast.io.readers.parts.files import AdvisedError
from emsr_fast.io.readers.parts.missing_chunks import Stored
from emsr_fast.io.volume import SourceVolume, VolumeInfo, check_pixels, instrument_name, pixel_dtype
from emsr_fast.io.voxels import UNKNOWN, VoxelSize, amount
from emsr_fast.reading import parse_xml
from emsr_fast.wording import counted

_DTYPES = {"Gray8": "u1", "Gray16": "u2", "Gray32Float": "f4"}


@dataclass(frozen=True)
class _Block:
    """One stored tile at full resolution."""

    place: Mapping[str, int]  # its number along each axis but Y and X
    size: tuple[int, int]  # rows, columns


def open_source(path: Path, key: str | None, asked: Asked) -> SourceVolume:
    """Return the scene ``key`` of the file, or the only one, opened for reading."""
    with needed("pylibCZIrw", path):
        from pylibCZIrw.czi import CziReader
    check_segments(path)
    with reading(path, "CZI"), _closed_on_error(CziReader(str(path))) as file:
        scenes = _scenes(file)
        name = chosen(
            {number: f"scene of {height} x {width}" for number, (_, _, height, width) in scenes.items()},
            key if len(scenes) > 1 or key is None else _only(scenes, key, path),
            path,
        )
        top, left, height, width = scenes[name]
        counts = {
            letter: int(stop - start)
            for letter, (start, stop) in file.total_bounding_box_no_pyramid.items()
            if letter not in "XY"
        }
        names = "".join(sorted(set(counts) - {"C", "Z"})) + "CZYX"
        shape = tuple({**counts, "Y": height, "X": width}.get(letter, 1) for letter in names)
        layout, words = layout_of(shape, path, asked=asked, stated=names)
        scene = int(name) if _in_scenes(file) else None
        kind = str(file.get_channel_pixel_type(layout.channel))
        if kind not in _DTYPES:
            what = "is in colour (Bgr), not grey" if kind.startswith("Bgr") else f"has pixels of type {kind}"
            raise VolumeError(f"{path} {what}; export it as 8, 16 or 32-bit grey")
        blocks = _blocks(file, scene, layout.channel if "C" in layout.names else None)
        dtype, depth = np.dtype(_DTYPES[kind]), layout.stack[0]
        notes = list(check_pixels(layout.stack, dtype, path))
        largest = (max(one.size[0] for one in blocks), max(one.size[1] for one in blocks)) if blocks else (1, 1)
        check_chunk(largest, dtype, path)
        kept = {one.place.get("Z", 0) for one in blocks}
        told, absent = Stored(len(kept), depth, depth).checked(path, 0, "slices")
        if len(blocks) > len(kept):
            notes.append(f"a mosaic of {counted(len(blocks), 'tile')}: put together as the file says")
        root = _metadata(file, notes)
        voxel_size_nm = _voxel_size(root, notes)
        info = VolumeInfo(
            path=path,
            format="CZI",
            shape=layout.stack,
            dtype=pixel_dtype(dtype),
            axes=words,
            chunks=(1, min(largest[0], height), min(largest[1], width)),
            voxel_size_nm=voxel_size_nm,
            voxel_size_from="CZI scaling" if voxel_size_nm != UNKNOWN else "not stated in the file",
            notes=(*notes, *told),
            key=name if len(scenes) > 1 else None,
            absent=absent,
            instrument=_instrument(root),
        )
        source = ArraySource(_Planes(file, layout, (top, left), scene, kind), layout, info, close=file.close)
        # no tile has pixels of two slices
        source.limit_memory(height * width * dtype.itemsize)
        return source


@contextmanager
def _closed_on_error(file: Any) -> Iterator[Any]:
    try:
        yield file
    except BaseException:
        file.close()
        raise


def _only(scenes: Mapping[str, Any], key: str, path: Path) -> str:
    if key not in scenes:
        raise VolumeError(f"{path} is a CZI file with one scene: leave `key={key}` out")
    return key


def _in_scenes(file: Any) -> bool:
    return bool(file.scenes_bounding_rectangle_no_pyramid)


def _scenes(file: Any) -> dict[str, tuple[int, int, int, int]]:
    """Return the first row and column, height and width of each scene by its number; of a file without, of all."""
    found = file.scenes_bounding_rectangle_no_pyramid or {0: file.total_bounding_rectangle_no_pyramid}
    return {str(number): (int(one.y), int(one.x), int(one.h), int(one.w)) for number, one in sorted(found.items())}


def _blocks(file: Any, scene: int | None, channel: int | None) -> list[_Block]:
    """Return the tiles of a scene and channel that are stored at full resolution."""
    found: list[_Block] = []

    def see(_: int, block: Any) -> bool:
        place = {str(letter): int(number) for letter, number in block.coordinate.to_dict().items()}
        if (
            block.get_zoom() == 1
            and (scene is None or place.get("S", scene) == scene)
            and (channel is None or place.get("C", channel) == channel)
        ):
            found.append(_Block(place, (int(block.physicalSize.h), int(block.physicalSize.w))))
        return True

    file.enumerate_subblocks(see)
    return found


class _Planes:
    """The pixels as an array of the axes that the layout names."""

    def __init__(self, file: Any, layout: Layout, first: tuple[int, int], scene: int | None, kind: str) -> None:
        self._file, self._layout, self._first, self._scene, self._kind = file, layout, first, scene, kind
        # its decoders are not said to be safe for several threads
        self._lock = threading.Lock()

    def __getitem__(self, where: tuple[slice | int, ...]) -> np.ndarray:
        named = dict(zip(self._layout.names, where, strict=True))
        place = {name: number for name, number in named.items() if isinstance(number, int)}
        slices, rows, cols = (
            range(*one.indices(side))
            for name, side in zip("ZYX", self._layout.stack, strict=True)
            if isinstance(one := named[name], slice)
        )
        top, left = self._first
        roi = (left + cols.start, top + rows.start, len(cols), len(rows))
        images = []
        for z in slices:
            try:
                with self._lock:
                    image = self._file.read(roi=roi, plane={**place, "Z": z}, scene=self._scene, pixel_type=self._kind)
            except MemoryError as error:
                # tiles of this size fit: one of them states another size where it is stored
                raise AdvisedError(
                    "a tile of it asks for more memory than there is; copy it again, or close other programs"
                ) from error
            images.append(image[None, ..., 0])
        return images[0] if len(images) == 1 else np.concatenate(images)


def _metadata(file: Any, notes: list[str]) -> ElementTree.Element:
    try:
        return parse_xml(file.raw_metadata)
    except (ElementTree.ParseError, ValueError, RuntimeError) as error:
        notes.append(f"its metadata cannot be read: {error}")
        return ElementTree.Element("ImageDocument")


def _voxel_size(root: ElementTree.Element, notes: list[str]) -> VoxelSize:
    """Return the voxel size in nm, from metres; 0 is what writers put where they know none."""
    stated = {
        one.get("Id"): (one.findtext("Value") or "").strip() for one in root.iterfind(".//Scaling/Items/Distance")
    }
    sizes: list[float | None] = []
    for axis in "ZYX":
        try:
            step = float(stated.get(axis) or 0)
        except ValueError:
            notes.append(f"CZI scaling {axis} ignored: {stated[axis]!r} is no number")
            step = 0.0
        sizes.append(amount(step, "m", f"CZI scaling {axis}", notes) if step else None)
    return sizes[0], sizes[1], sizes[2]


def _instrument(root: ElementTree.Element) -> str | None:
    microscope = root.find(".//Instrument/Microscopes/Microscope")
    if microscope is None:
        return None
    return instrument_name(microscope.findtext("System") or microscope.get("Name") or "") or None

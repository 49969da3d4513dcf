"""Reads Zarr: OME-Zarr 0.4 and 0.5 and plain Zarr v2 and v3, one array of a folder, chunk by chunk."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import ByteRequest, RangeByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.storage import LocalStore

from emsr_fast.errors import EmsrError, VolumeError
from emsr_fast.io.axes import Asked, chosen, layout_of
from emsr_fast.io.readers.parts.array import LARGEST_CHUNK, ArraySource, check_chunk
from emsr_fast.io.readers.parts.attributes import axes_of, sizes_of
from emsr_fast.io.readers.parts.bounded_chunks import bounded
from emsr_fast.io.readers.parts.files import check_inside, check_regular
from emsr_fast.io.readers.parts.missing_chunks import LocalFiles
from emsr_fast.io.readers.parts.ngff import Multiscale, multiscale_of
from emsr_fast.io.readers.parts.parent_metadata import image_above, local_groups
from emsr_fast.io.readers.parts.zarr_names import as_stored, other_name
from emsr_fast.io.readers.parts.zarr_tree import MARKS, images_below
from emsr_fast.io.volume import SourceVolume, VolumeInfo, check_pixels, pixel_dtype
from emsr_fast.reading import MOST_BYTES, too_much

_MOST_OF_A_CHUNK = LARGEST_CHUNK + LARGEST_CHUNK // 8  # bytes of its file: what does not compress becomes longer
_READ_AT_ONCE = 2**20  # bytes; of smaller files several are waited for at a time
_UNKNOWN_CODEC = re.compile(r"(?:codec not available|Unknown codec): '*([\w.-]+)")


def open_source(path: Path, key: str | None, asked: Asked) -> SourceVolume:
    """Return the array or level ``key`` of the folder, or the only image in it, opened for reading."""
    try:
        store = ContainedStore(path, read_only=True)
        array, level, image = _find(store, key, asked, path)
        there = levels_there(image[0], path / level.removesuffix(image[1])) if image else []
        if image is None and not asked.axes:
            image = image_above(local_groups(path, level))
        described = array.metadata.to_dict()
        _, notes, absent = as_stored(LocalFiles(path / level), described, path / level, under_either=True)
        store.read_under_either_name(level, other_name(described))
        return zarr_source(
            bounded(array), level, image, path, asked,
            zarr_format=array.metadata.zarr_format, notes=notes, absent=absent, levels=there,
        )  # fmt: skip
    except (EmsrError, MemoryError):
        raise
    # zarr raises many kinds for what is one thing to the user
    except Exception as error:
        given_up = too_much(error)
        reason = f"in its metadata {given_up}" if given_up else f"{type(error).__name__}: {error}"
        if codec := _UNKNOWN_CODEC.search(reason):
            raise VolumeError(
                f"{path}: its chunks are compressed with {codec[1]}, which no installed package has; install the one "
                "that does (imagecodecs, zfpy, pcodec, ...), or write it again with zstd"
            ) from error
        raise VolumeError(f"{path} cannot be read as Zarr: {reason}; check how it was written") from error


def zarr_source(
    array: Any,
    level: str,
    image: tuple[Multiscale, str] | None,
    path: PurePath,
    asked: Asked,
    *,
    zarr_format: int,
    notes: tuple[str, ...] = (),
    absent: Mapping[str, int],
    levels: Sequence[str] = (),
) -> SourceVolume:
    """Return an array as a stack.

    Args:
        array: with shape, dtype, chunks and attrs, and numpy arrays for slices.
        level: its path from the root, "" for the root itself.
        image: the multiscale image that it is a level of, and its name in it; None for a plain array.
        path: of the root.
        asked: what the user says of the axes.
        zarr_format: 2 or 3.
        notes: what else is known about it.
        absent: how many chunks are not stored, see ``VolumeInfo``.
        levels: the levels of the image that exist; if empty, all that it lists.
    """
    dtype = np.dtype(array.dtype).newbyteorder("=")
    check_chunk(tuple(array.chunks), dtype, path)
    stated = image[0].axes if image else axes_of(_named_axes(array), len(array.shape))
    layout, words = layout_of(array.shape, path, asked=asked, stated=stated)
    told = list(check_pixels(layout.stack, dtype, path))
    if image is None:
        kind, (voxel_size_nm, origin) = f"Zarr v{zarr_format}", sizes_of(array.attrs, layout)
    else:
        around, name = image
        kind, origin = f"OME-Zarr {around.version}", "OME-Zarr scale and unit"
        voxel_size_nm, more = around.voxel_size(name, layout)
        told += [*around.notes, *more]
        if len(there := levels or list(around.levels)) > 1:
            how = "; another one with `key`" if level.endswith(name) else f"; this is {name}, given by its path"
            told.append(f"{len(there)} levels: {', '.join(there)}{how}")
    info = VolumeInfo(
        path=path,
        format=kind,
        key=level,
        shape=layout.stack,
        dtype=pixel_dtype(dtype),
        axes=words,
        chunks=layout.in_order(tuple(array.chunks), 1),
        voxel_size_nm=voxel_size_nm,
        voxel_size_from=origin if image is None or any(voxel_size_nm) else "not stated in the file",
        notes=(*told, *notes),
        absent=absent,
    )
    return ArraySource(array, layout, info)


def _find(
    store: ContainedStore, key: str | None, asked: Asked, path: Path
) -> tuple[zarr.Array, str, tuple[Multiscale, str] | None]:
    """Return the array asked for, its path, and the multiscale image below ``path`` that lists it, with its name."""
    root = _node(store, "")
    if isinstance(root, zarr.Array):
        if key is not None:
            raise VolumeError(f"{path} is one array; leave `key={key}` out, or give the folder that it is in")
        return root, "", None
    if key is None and (root is None or multiscale_of(root.attrs, path) is None):
        key = chosen(images_below(path), None, path)
    place = key or ""
    node = _node(store, place)
    if isinstance(node, zarr.Array):
        # named with its axes it is taken as it is, whatever the metadata around it
        return node, place, None if asked.axes else _image_of(store, place, path)
    image = None if node is None else multiscale_of(node.attrs, path)
    if image is None:
        below = images_below(path, place)
        if node is None and not below:
            chosen(images_below(path), key, path)  # raises, listing what there is
            raise VolumeError(f"{path} has no array {key!r}; check `key`")
        return _find(store, f"{place}/{chosen(below, None, path / place)}", asked, path)
    first = next(iter(image.levels))
    if ".." in first.split("/") or first.startswith("/"):
        raise VolumeError(f"{path} names {first!r} as a level, which leads out of it; write it again")
    level = f"{place}/{first}".strip("/")
    array = _node(store, level)
    if array is None:
        raise absent_level(path, level, [f"{place}/{name}".strip("/") for name in levels_there(image, path / place)])
    if not isinstance(array, zarr.Array):
        raise VolumeError(f"{path}: level {first!r} is not an array; write it again")
    return array, level, (image, first)


def _node(store: ContainedStore, place: str) -> zarr.Array | zarr.Group | None:
    """Return the array or group at ``place``; None if it has no metadata, which groups above an array may lack."""
    try:
        return zarr.open(store=store, path=place, mode="r")
    except FileNotFoundError:
        return None


def levels_there(image: Multiscale, folder: Path) -> list[str]:
    """Return the levels of an image in ``folder`` that exist."""
    marks = ("zarr.json", ".zarray")
    return [name for name in image.levels if any((folder / name / mark).is_file() for mark in marks)]


def absent_level(path: PurePath, level: str, there: list[str]) -> VolumeError:
    """Return the error for a level that the metadata list but that is missing; ``there`` are those that exist."""
    if not there:
        return VolumeError(f"{path} has none of the levels that its metadata list; copy it again")
    return VolumeError(f"{path}: level {level} is not there; there are: {', '.join(there)}; name one with `key`")


def _image_of(store: ContainedStore, place: str, path: Path) -> tuple[Multiscale, str] | None:
    """Return the multiscale image of a group above the array at ``place`` that lists it, and its name there."""
    parts = place.split("/")
    for depth in range(len(parts)):
        group = _node(store, "/".join(parts[:depth]))
        name = "/".join(parts[depth:])
        image = None if group is None else multiscale_of(group.attrs, path, name)
        if image and name in image.levels:
            return image, name
    return None


def _named_axes(array: Any) -> list[Any] | None:
    # v3 has a field for them, v2 xarray's attribute; funlib has its own in both
    named = getattr(getattr(array, "metadata", None), "dimension_names", None)
    return named or array.attrs.get("_ARRAY_DIMENSIONS") or array.attrs.get("axis_names")


class ContainedStore(LocalStore):
    """A folder whose links are followed only inside it: a foreign volume must not make us read other files."""

    _level = ""
    _other_name: Callable[[str], str | None] | None = None

    def read_under_either_name(self, level: str, other_name: Callable[[str], str | None]) -> None:
        """Let the array ``level`` also read chunks that exist only under the name from ``other_name``."""
        self._level, self._other_name = f"{level}/" if level else "", other_name

    def _as_stored(self, key: str) -> str:
        if self._other_name is None or not key.startswith(self._level):
            return key
        other = self._other_name(key.removeprefix(self._level))
        return key if other is None or (self.root / key).is_file() else f"{self._level}{other}"

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        key = self._as_stored(key)
        place = self.root / key
        check_inside(self.root, place, self.root)
        # zarr asks for the metadata of what may be no group, and no folder
        if place.exists() and not place.is_dir():
            check_regular(place, self.root)
            size = place.stat().st_size
            # zarr takes an empty shard for one of nothing but the fill value, and no chunk is encoded as nothing
            if size == 0:
                raise VolumeError(f"{place} is empty (0 bytes); copy or write it again")
            # memory for a range is taken before it is read, whatever a damaged shard's index claims
            if isinstance(byte_range, RangeByteRequest) and byte_range.end > size:
                raise VolumeError(f"{place} is cut or damaged: it lacks bytes that its index names; write it again")
            most = MOST_BYTES if place.name in MARKS else _MOST_OF_A_CHUNK
            if byte_range is None and size > most:
                raise VolumeError(f"{place} has {size} bytes, at most {most} are expected; check how it was written")
            if byte_range is None and size >= _READ_AT_ONCE:
                # in this thread: each of a pool's would keep the memory of a chunk for its next one
                made = default_buffer_prototype() if prototype is None else prototype
                return made.buffer.from_bytes(place.read_bytes())
        return await super().get(key, prototype, byte_range)

"""Reads through tensorstore: N5 and Neuroglancer precomputed, and these and Zarr on s3, gs and http."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from types import SimpleNamespace
from typing import Any

from emsr_fast.errors import VolumeError
from emsr_fast.io.axes import Asked, chosen, layout_of
from emsr_fast.io.readers.parts import precomputed
from emsr_fast.io.readers.parts.array import ArraySource, check_chunk
from emsr_fast.io.readers.parts.attributes import axes_of, scaled_sizes_of
from emsr_fast.io.readers.parts.bigdataviewer import voxel_size_in_n5
from emsr_fast.io.readers.parts.kvstore import Store, Where
from emsr_fast.io.readers.parts.missing_chunks import grid_of, look_for, numbered, touched
from emsr_fast.io.readers.parts.ngff import Multiscale, multiscale_of
from emsr_fast.io.readers.parts.parent_metadata import MOST_ABOVE, Group, image_above
from emsr_fast.io.readers.parts.zarr_names import as_stored, unit_of
from emsr_fast.io.volume import SourceVolume, VolumeInfo, check_pixels, pixel_dtype
from emsr_fast.io.voxels import VoxelSize, nanometres

_MOST_FOLDERS = 500
# of Zarr v2, and of its codecs, what tensorstore knows
_ZARRAY_KEYS = (
    "zarr_format", "shape", "chunks", "dtype", "compressor", "fill_value", "order", "filters", "dimension_separator"
)  # fmt: skip
_CODEC_KEYS = {
    "blosc": ("cname", "clevel", "shuffle", "blocksize"),
    "zstd": ("level",),
    "gzip": ("level",),
    "zlib": ("level",),
    "bz2": ("level",),
}


def open_source(path: PurePath, key: str | None, asked: Asked) -> SourceVolume:
    """Return the array, level or scale ``key`` of the volume at ``path``, a folder or URL, opened for reading."""
    store = Store(path)
    with store.errors():
        if (info := store.json("info")) is not None and "scales" in info:
            return _open_precomputed(store, info, key, asked)
        for opened in (_open_zarr3, _open_zarr2, _open_n5):
            source = opened(store, key, asked)
            if source is not None:
                return source
    if store.denied:
        raise VolumeError(
            f"{path} cannot be read: the server forbids to read {', '.join(store.denied[:3])} and others: they are not "
            "there or closed to you; check the address and your credentials, or name the array with `key`"
        )
    raise VolumeError(
        f"{path} holds no Zarr, N5 or Neuroglancer precomputed volume (no zarr.json, .zarray, .zgroup, attributes.json "
        "or info); check the address"
    )


def _open_precomputed(store: Store, info: Mapping[str, Any], key: str | None, asked: Asked) -> SourceVolume:
    scales = {str(scale["key"]): scale for scale in info["scales"]}
    listed = {name: " x ".join(map(str, scale["size"])) for name, scale in scales.items()}
    name = chosen(listed, key, store.path) if key is not None else next(iter(scales))
    if ".." in name.split("/") or name.startswith("/"):
        raise VolumeError(f"{store.path} names {name!r} as a scale, which leads out of it; write it again")
    array, notes, absent = precomputed.opened(store, info, list(scales).index(name))
    if scales[name].get("sharding") and not isinstance(store.path, Path):
        array.check_parts()
    sizes = [nanometres(float(side), "nm") for side in scales[name]["resolution"]]
    return _source(
        store, array, "Neuroglancer precomputed", name, asked, "XYZC", (*_levels(scales), *notes),
        sizes=((sizes[2], sizes[1], sizes[0]), "precomputed resolution"), absent=absent,
    )  # fmt: skip


def _open_n5(store: Store, key: str | None, asked: Asked) -> SourceVolume | None:
    place = key or ""
    node = store.json(f"{place}/attributes.json")
    below = {} if node is not None else _n5_arrays(store, place)
    if node is None and not below and (key is None or store.json("attributes.json") is None):
        return None
    if node is None and below:
        # a folder above datasets may have no file of its own
        place = chosen(below, None, store.path / place)
        node = store.json(f"{place}/attributes.json") or {}
    if node is None:
        chosen(_n5_arrays(store), key, store.path)
        raise VolumeError(f"{store.path} has no N5 dataset {key!r}; check `key`")
    group: Mapping[str, Any] = {}
    notes: tuple[str, ...] = ()
    if "dimensions" in node:
        above = (
            store.json(f"{place.rpartition('/')[0]}/attributes.json")
            if place
            else store.json_above(1, "attributes.json")
        )
        group = above or {}
    else:
        # a pyramid: s0 is the finest
        finest = f"{place}/s0".strip("/")
        inside = store.json(f"{finest}/attributes.json")
        if inside is None or "dimensions" not in inside:
            finest = chosen(_n5_arrays(store, place), None, store.path / place)
            inside = store.json(f"{finest}/attributes.json") or {}
        else:
            notes = ("level s0 of a pyramid; another one with `key`",)
        above = store.json(f"{finest.rpartition('/')[0]}/attributes.json")
        group, node, place = above or {}, inside, finest
    naming = numbered(grid_of(node["dimensions"], node["blockSize"]), "/")

    def chunks(where: Where) -> Iterator[str]:
        for index in touched(where, node["blockSize"], node["dimensions"]):
            yield f"{place}/{naming.name(index)}".strip("/")

    array = store.array("n5", place, chunks)
    stated = axes_of(node.get("axes"), len(array.shape))
    layout, _ = layout_of(array.shape, store.path, asked=asked, stated=stated, usual="XYZ")
    told, absent = look_for(store.folder(place), [naming])[0].checked(store.path / place, 0)
    sizes, whole = scaled_sizes_of(node, group, layout), store.path / place
    # BigDataViewer keeps the unit in a file beside the container
    if isinstance(whole, Path) and (known := voxel_size_in_n5(whole, node.get("downsamplingFactors"))):
        sizes, told = (known[0], known[1]), (*told, *known[2])
    return _source(
        store, array, "N5", place, asked, stated, (*notes, *told), usual="XYZ", sizes=sizes, absent=absent,
    )  # fmt: skip


def _open_zarr3(store: Store, key: str | None, asked: Asked) -> SourceVolume | None:
    root = store.json("zarr.json")
    # groups above an array may have no file
    if root is None and (key is None or store.json(f"{key}/zarr.json") is None):
        return None
    inside = ((root or {}).get("consolidated_metadata") or {}).get("metadata") or {}
    listed = {name: _described(node) for name, node in inside.items() if node.get("node_type") == "array"}

    def node(place: str) -> tuple[Mapping[str, Any], bool, Any] | None:
        found = store.json(f"{place}/zarr.json") if place else root
        if found is None:
            return None
        return found.get("attributes") or {}, found.get("node_type") == "array", found.get("dimension_names")

    return _open_zarr(store, node, listed, key, asked, 3)


def _open_zarr2(store: Store, key: str | None, asked: Asked) -> SourceVolume | None:
    marks = (".zarray", ".zgroup", ".zattrs")
    if all(store.json(name) is None for name in (*marks, *(f"{key}/{mark}" for mark in marks if key))):
        return None
    inside = (store.json(".zmetadata") or {}).get("metadata") or {}
    listed = {
        name.removesuffix("/.zarray"): _described(node) for name, node in inside.items() if name.endswith("/.zarray")
    }

    def node(place: str) -> tuple[Mapping[str, Any], bool, Any] | None:
        array = store.json(f"{place}/.zarray") is not None
        if not array and store.json(f"{place}/.zgroup") is None and store.json(f"{place}/.zattrs") is None:
            return None
        attributes = store.json(f"{place}/.zattrs") or {}
        return attributes, array, attributes.get("_ARRAY_DIMENSIONS")

    return _open_zarr(store, node, listed, key, asked, 2)


def _open_zarr(
    store: Store, node: Any, listed: Mapping[str, str], key: str | None, asked: Asked, zarr_format: int
) -> SourceVolume:
    from emsr_fast.io.readers.zarr import absent_level, zarr_source

    place = key or ""
    found = node(place)
    if found is None:
        chosen(listed, key, store.path)
        raise VolumeError(f"{store.path} has no array {key!r}; check `key`")
    attributes, is_array, dimension_names = found
    member: tuple[Multiscale, str] | None = None
    if not is_array:
        image = multiscale_of(attributes, store.path)
        if image is None:
            below = {name: what for name, what in listed.items() if not place or name.startswith(f"{place}/")}
            if not below:
                raise VolumeError(f"{store.path / place} is a group that cannot be listed; name an array with `key`")
            place = chosen(below, None, store.path)
        else:
            level = next(iter(image.levels))
            place, member = f"{place}/{level}".strip("/"), (image, level)
        if ".." in place.split("/"):
            raise VolumeError(f"{store.path} names {place!r} as a level, which leads out of it; write it again")
        attributes, _, dimension_names = node(place) or ({}, True, None)
    elif not asked.axes:
        member = image_above(_groups_above(store, node, place))
    described = store.json(f"{place}/zarr.json" if zarr_format == 3 else f"{place}/.zarray")
    if described is None and member:
        group = place.removesuffix(member[1])
        mark = "zarr.json" if zarr_format == 3 else ".zarray"
        raise absent_level(
            store.path, place, [f"{group}{name}" for name in member[0].levels if store.json(f"{group}{name}/{mark}")]
        )
    if described is None:
        raise VolumeError(f"{store.path} has no array {place!r}; name another with `key`")
    as_named, notes, absent = as_stored(store.folder(place), described, store.path / place)
    if zarr_format == 2:
        array = store.array("zarr", place, metadata=_as_tensorstore_reads(as_named))
    elif as_named != described:
        array = store.array("zarr3", place, metadata=as_named)
    else:
        array = store.array("zarr3", place)
    if unit_of(described) == "shards" and not isinstance(store.path, Path):
        array.check_parts()
    array.attrs, array.metadata = attributes, SimpleNamespace(dimension_names=dimension_names)
    return zarr_source(
        array, place, member, store.path, asked, zarr_format=zarr_format, notes=notes, absent=absent
    )  # fmt: skip


def _groups_above(store: Store, node: Any, place: str) -> Iterator[Group]:
    """Yield the groups above the array at ``place``: inside the volume, then in the folders above it."""
    parts = place.split("/") if place else []
    for depth in reversed(range(len(parts))):
        if above := node("/".join(parts[:depth])):
            yield above[0], "/".join(parts[depth:]), store.path
    for up, folder in enumerate(itertools.islice(store.path.parents, MOST_ABOVE), 1):
        name = "/".join([*store.path.parts[-up:], *parts])
        inside = (store.json_above(up, "zarr.json") or {}).get("attributes"), store.json_above(up, ".zattrs")
        for attributes in inside:
            if isinstance(attributes, Mapping):
                yield attributes, name, folder


def _as_tensorstore_reads(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return a .zarray without the keys that tensorstore refuses; reading needs none of them."""
    kept = {name: value for name, value in described.items() if name in _ZARRAY_KEYS}
    codec = kept.get("compressor")
    if isinstance(codec, Mapping) and codec.get("id") in _CODEC_KEYS:
        known = ("id", *_CODEC_KEYS[codec["id"]])
        kept["compressor"] = {name: value for name, value in codec.items() if name in known}
    return kept


def _source(
    store: Store,
    array: Any,
    kind: str,
    key: str,
    asked: Asked,
    stated: str | None,
    notes: tuple[str, ...],
    *,
    sizes: tuple[VoxelSize, str],
    absent: Mapping[str, int],
    usual: str = "ZYX",
) -> SourceVolume:
    layout, words = layout_of(array.shape, store.path, asked=asked, stated=stated, usual=usual)
    check_chunk(array.chunks, array.dtype, store.path)
    info = VolumeInfo(
        path=store.path,
        format=kind,
        key=key,
        shape=layout.stack,
        dtype=pixel_dtype(array.dtype),
        axes=words,
        chunks=layout.in_order(array.chunks, 1),
        voxel_size_nm=sizes[0],
        voxel_size_from=sizes[1],
        notes=(*check_pixels(layout.stack, array.dtype, store.path), *notes),
        absent=absent,
    )
    return ArraySource(array, layout, info)


def _n5_arrays(store: Store, place: str = "") -> dict[str, str]:
    """Return the N5 datasets below a local folder; a web folder cannot be listed."""
    found: dict[str, str] = {}
    if not isinstance(store.path, Path):
        return found
    for visited, (folder, inner, _) in enumerate(os.walk(store.path / place)):
        inside = Path(folder).relative_to(store.path).as_posix().removeprefix(".")
        attributes = store.json(f"{inside}/attributes.json") or {}
        if "dimensions" in attributes:
            found[inside] = _described(attributes)
            inner.clear()
        if visited > _MOST_FOLDERS:
            break
        inner.sort()
    return found


def _described(node: Mapping[str, Any]) -> str:
    shape = node.get("shape") or node.get("dimensions") or ()
    return f"{' x '.join(map(str, shape))} {node.get('dtype') or node.get('dataType') or node.get('data_type')}"


def _levels(levels: Mapping[str, Any]) -> tuple[str, ...]:
    return (f"{len(levels)} levels: {', '.join(levels)}; another one with `key`",) if len(levels) > 1 else ()

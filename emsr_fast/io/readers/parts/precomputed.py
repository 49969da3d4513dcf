"""Chunks of Neuroglancer precomputed: their names, and those that cloud-volume stores as NAME.gz."""

from __future__ import annotations

import gzip
import json
import math
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np

from emsr_fast.errors import VolumeError
from emsr_fast.io.readers.parts.kvstore import Store, TensorArray, Where
from emsr_fast.io.readers.parts.missing_chunks import Index, Naming, Stored, UnlistedError, grid_of, look_for, touched

# a volume may begin at a negative voxel: -8-8_-16-0_-3--1
_NAME = re.compile("_".join([r"(-?\d+)-(-?\d+)"] * 3), re.ASCII)
_SLACK = 2**16  # bytes: headers of an encoding that does not compress


def opened(store: Store, info: Mapping[str, Any], number: int) -> tuple[Any, tuple[str, ...], dict[str, int]]:
    """Return scale ``number`` as an array (x, y, z, channel), notes, and how many of its chunks are not stored.

    Raises:
        VolumeError: no chunk is stored.
    """
    scale = info["scales"][number]
    place, path = str(scale["key"]), store.path

    def chunks(where: Where) -> Iterator[str]:
        for index in () if scale.get("sharding") else touched(where[:3], _sides(scale), scale["size"]):
            yield f"{place}/{_naming(scale).name(index)}"

    array = store.array("neuroglancer_precomputed", chunks=chunks, scale_index=number)
    if scale.get("sharding"):
        return (array, *_of_shards(store, place))
    plain, packed = look_for(store.folder(place), [_naming(scale), _naming(scale, ".gz")])
    # a chunk may be there under both names
    either = replace(plain, found=min(plain.found + packed.found, plain.looked_for))
    notes, absent = either.checked(path, 0)
    if not packed.found:
        return array, notes, absent
    return _Packed(store, info, number, array), (*notes, "chunks are stored as NAME.gz"), absent


def _of_shards(store: Store, place: str) -> tuple[tuple[str, ...], dict[str, int]]:
    # which shards there should be depends on which chunks there are: only that there is one can be asked
    try:
        shards = [name for name in store.folder(place).names() if name.endswith(".shard")]
    except UnlistedError:
        return ("whether all of its shards are stored cannot be seen here",), {}
    store.check(f"{place}/{name}" for name in shards)
    notes, absent = Stored(int(bool(shards)), 1, 1).checked(store.path, 0, "shards")
    return (*notes, "which shards, and what in them, is missing cannot be seen here: it reads as 0"), absent


def _naming(scale: Mapping[str, Any], suffix: str = "") -> Naming:
    sides, size = _sides(scale), [int(side) for side in scale["size"]]
    first = [int(at) for at in scale.get("voxel_offset") or (0, 0, 0)]

    def name(index: Index) -> str:
        begins = [at * side for at, side in zip(index, sides, strict=True)]
        ends = [min(begin + side, length) for begin, side, length in zip(begins, sides, size, strict=True)]
        spans = zip(first, begins, ends, strict=True)
        return "_".join(f"{origin + begin}-{origin + end}" for origin, begin, end in spans) + suffix

    def index(found: str) -> Index | None:
        match = _NAME.match(found)
        if match is None:
            return None
        begins = [int(begin) - origin for begin, origin in zip(match.groups()[::2], first, strict=True)]
        at = tuple(begin // side for begin, side in zip(begins, sides, strict=True))
        return at if min(at) >= 0 and name(at) == found else None

    return Naming(grid_of(size, sides), name, index)


def _sides(scale: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(int(side) for side in scale["chunk_sizes"][0])


class _Packed:
    """An array with chunks stored as NAME.gz: they are unpacked into memory, where tensorstore decodes them."""

    def __init__(self, store: Store, info: Mapping[str, Any], number: int, array: TensorArray) -> None:
        self.shape, self.dtype, self.chunks = array.shape, array.dtype, array.chunks
        self._store, self._number = store, number
        self._info = json.dumps(info).encode()
        scale = info["scales"][number]
        self._key, self._sides, self._name = str(scale["key"]), _sides(scale), _naming(scale).name
        self._largest = math.prod(self._sides) * self.shape[3] * self.dtype.itemsize + _SLACK

    def __getitem__(self, where: tuple[int | slice, ...]) -> np.ndarray:
        files = {"info": self._info}
        for index in touched(where[:3], self._sides, self.shape[:3]):
            name = f"{self._key}/{self._name(index)}"
            content = self._store.read(name)
            if content is None and (packed := self._store.read(f"{name}.gz")) is not None:
                content = self._unpacked(packed, f"{name}.gz")
            if content is not None:
                files[name] = content
        array = self._store.array_of(files, "neuroglancer_precomputed", scale_index=self._number)
        return array[where]

    def _unpacked(self, packed: bytes, name: str) -> bytes:
        # a header may claim that it becomes any size
        try:
            content = gzip.GzipFile(fileobj=BytesIO(packed)).read(self._largest + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise VolumeError(f"{name} is not gzip, or cut: {error}; copy it again") from error
        if len(content) > self._largest:
            raise VolumeError(f"{name} is larger than a chunk of {self._largest} bytes; copy it again")
        return content

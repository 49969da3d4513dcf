"""Writes OME-Zarr: whole shards, each in one step, and the pyramid above them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

from emsr_fast.errors import VolumeError
from emsr_fast.io.destination import printable, staging, system_errors
from emsr_fast.io.resize import block_means
from emsr_fast.io.selection import ZYX
from emsr_fast.io.volume import TargetSpec, TargetVolume, check_block
from emsr_fast.io.writers.multiscale import Level, attributes, levels_of
from emsr_fast.publish import write_durably
from emsr_fast.shield import shielded_from_signals


def create_target(path: Path, spec: TargetSpec, *, overwrite: bool) -> TargetVolume:
    """Return a new OME-Zarr 0.5 under a temporary name beside ``path``."""
    return OmeZarrTarget(path, spec, overwrite=overwrite)


# writes a file in one step that no kill can halve
Put = Callable[[Path, Any], None]


class DurableStore(LocalStore):
    """Writes files that appear only when they are complete and on the disk."""

    def __init__(self, root: Path | str, put: Put, *, read_only: bool = False) -> None:
        super().__init__(root, read_only=read_only)
        self._put = put

    def with_read_only(self, read_only: bool = False) -> DurableStore:
        return type(self)(self.root, self._put, read_only=read_only)

    async def set(self, key: str, value: Buffer) -> None:
        # in this thread: one of zarr's own, which waits for nothing else
        self.set_sync(key, value)

    def set_sync(self, key: str, value: Buffer) -> None:
        self._check_writable()
        self._put(self.root / key, value.as_buffer_like())


def _with_checksums(array: zarr.Array) -> zarr.Array:
    """Return an array of Zarr v2, open for writing frames with checksums; its metadata do not mention them."""
    metadata = array.metadata.to_dict() | {"compressor": numcodecs.Zstd(level=3, checksum=True).get_config()}
    return zarr.Array(zarr.AsyncArray(type(array.metadata).from_dict(metadata), array.store_path))


def _forget_key(path: Path, put: Put) -> None:
    """Remove the key "checksum" from an array's .zarray: many readers refuse it, and all check frames without it."""
    described = json.loads(path.read_text())
    described["compressor"].pop("checksum", None)
    put(path, json.dumps(described, indent=1).encode())


def _remove_file(path: Path) -> None:
    """Remove a file, link or pipe, if it is there."""
    if path.is_dir() and not path.is_symlink():
        raise VolumeError(f"{path} is a folder, which emsr-fast did not make: move it away, and repeat the command")
    path.unlink(missing_ok=True)


def metadata_files(path: Path, levels: int, version: str) -> Iterator[Path]:
    """Yield the files that say how the group at ``path`` and its levels are stored."""
    v2 = version == "0.4"
    yield from (path / name for name in ((".zgroup", ".zattrs") if v2 else ("zarr.json",)))
    yield from (path / str(number) / (".zarray" if v2 else "zarr.json") for number in range(levels))


class Pyramid:
    """A multiscale Zarr group open for writing by whole shards, by any number of processes."""

    def __init__(self, path: Path, levels: list[Level], put: Put) -> None:
        self.path, self.levels = path, levels
        store = DurableStore(path, put)
        # a shard of nothing but zeros is a file too: that a file is there means that its work is done
        with zarr.config.set({"array.write_empty_chunks": True}):
            group = zarr.open_group(store, mode="r+")
            arrays: list[zarr.Array] = [group[str(number)] for number in range(len(levels))]  # type: ignore[misc]
            self.arrays = [_with_checksums(one) for one in arrays] if group.metadata.zarr_format == 2 else arrays

    @classmethod
    def create(
        cls, path: Path, spec: TargetSpec, shard: ZYX, *, title: str, version: str, pyramid: bool, put: Put
    ) -> Pyramid:
        """Make the group and its empty levels at ``path``."""
        levels = levels_of(spec, shard, version, pyramid=pyramid)
        group = zarr.create_group(
            DurableStore(path, put),
            zarr_format=2 if version == "0.4" else 3,
            attributes=attributes(spec, levels, title, version),
        )
        for number, level in enumerate(levels):
            if version == "0.4":
                options: dict[str, Any] = {
                    # blosc has no checksums
                    "compressors": numcodecs.Zstd(level=3),
                    "chunk_key_encoding": {"name": "v2", "separator": "/"},
                }
            else:
                options = {
                    "shards": level.shard,
                    "compressors": (BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"), Crc32cCodec()),
                    "dimension_names": ["z", "y", "x"],
                }
            group.create_array(
                str(number), shape=level.shape, chunks=level.chunk, dtype=spec.dtype, fill_value=0, **options
            )
            if version == "0.4":
                _forget_key(path / str(number) / ".zarray", put)
        return cls(path, levels, put)

    def has(self, level: int, index: ZYX) -> bool:
        """Return whether shard ``index`` is complete."""
        return all(path.is_file() for path in self.files(level, index))

    def files(self, level: int, index: ZYX) -> Iterator[Path]:
        """Yield the files of shard ``index``: one, or without sharding one for each of its chunks."""
        place, array = self.levels[level].place(index), self.arrays[level]
        sides = array.shards or array.chunks
        ranges = (range(part.start // side, -(-part.stop // side)) for part, side in zip(place, sides, strict=True))
        for chunk in itertools.product(*ranges):
            yield self.path / str(level) / array.metadata.encode_chunk_key(chunk)

    def missing(self, level: int) -> Iterator[ZYX]:
        """Yield the shards of ``level`` that are not there."""
        for index in self.levels[level].indices():
            if not self.has(level, index):
                yield index

    def write(self, level: int, index: ZYX, pixels: np.ndarray) -> None:
        """Write all of shard ``index``.

        Raises:
            VolumeError: a folder has the name of one of its files.
        """
        for path in self.files(level, index):
            # zarr looks at what is there first: a pipe never ends, and a link leads elsewhere
            if path.is_symlink() or not path.is_file():
                _remove_file(path)
        self.arrays[level][self.levels[level].place(index)] = pixels

    def read(self, level: int, index: ZYX) -> np.ndarray:
        """Return all of shard ``index``, decoded."""
        return np.asarray(self.arrays[level][self.levels[level].place(index)])

    def above(self, index: ZYX, level: int = 0) -> Iterator[tuple[int, ZYX]]:
        """Yield level and index of each shard that is made of shard ``index`` of ``level``, from below."""
        for number, coarser in enumerate(self.levels[level + 1 :], level + 1):
            z, y, x = (at // f for at, f in zip(index, coarser.factor, strict=True))
            index = (z, y, x)
            yield number, index

    def forget(self, index: ZYX, level: int = 0) -> None:
        """Remove shard ``index`` of ``level``, then those above it, which are means of it.

        Raises:
            VolumeError: a folder has the name of one of their files.
        """
        for number, place in ((level, index), *self.above(index, level)):
            for file in self.files(number, place):
                _remove_file(file)

    def raise_above(self, index: ZYX) -> None:
        """Write the missing shards above shard ``index`` of level 0, as far as all shards below them are there.

        Two processes that finish the last two parts at the same time may both write it, with the same bytes.
        """
        for number, place in self.above(index):
            if self.has(number, place) or not all(self.has(number - 1, below) for below in self._below(number, place)):
                return
            self.reduce(number, place)

    def reduce(self, number: int, index: ZYX) -> None:
        """Write shard ``index`` of level ``number`` as means of the level before, one of its chunks after another."""
        level, before = self.levels[number], self.arrays[number - 1]
        place = level.place(index)
        pixels = np.zeros([part.stop - part.start for part in place], before.dtype)
        starts = (range(part.start, part.stop, side) for part, side in zip(place, level.chunk, strict=True))
        for corner in itertools.product(*starts):
            chunk = [
                slice(at, min(at + side, part.stop)) for at, side, part in zip(corner, level.chunk, place, strict=True)
            ]
            # reaches beyond the last voxel at odd ends; what is read ends there
            below = tuple(slice(c.start * f, c.stop * f) for c, f in zip(chunk, level.factor, strict=True))
            inside = tuple(slice(c.start - p.start, c.stop - p.start) for c, p in zip(chunk, place, strict=True))
            pixels[inside] = block_means(np.asarray(before[below]), level.factor)
        self.write(number, index, pixels)

    def _below(self, number: int, index: ZYX) -> Iterator[ZYX]:
        level, before = self.levels[number], self.levels[number - 1]
        place = level.place(index)
        ranges = (
            range(part.start * f // side, min(-(-part.stop * f // side), count))
            for part, f, side, count in zip(place, level.factor, before.shard, before.grid, strict=True)
        )
        deep, tall, wide = ranges
        yield from itertools.product(deep, tall, wide)

    def finish(self) -> None:
        """Write the shards above level 0 that are missing."""
        for number in range(1, len(self.levels)):
            for index in self.missing(number):
                self.reduce(number, index)


class OmeZarrTarget(TargetVolume):
    """A multiscale image written slice by slice; its pyramid is made at the end."""

    def __init__(self, path: Path, spec: TargetSpec, *, overwrite: bool) -> None:
        self.spec = spec
        self._staging = staging(path, overwrite=overwrite, folder=True)
        try:
            # zarr writes in threads of its own: interrupted here, one could go on after the clean-up
            with system_errors(self._staging.final), shielded_from_signals():
                self._pyramid = Pyramid.create(
                    self._staging.path,
                    spec,
                    (1, spec.block, spec.block),
                    title=printable(self._staging.final.name),
                    version="0.5",
                    pyramid=True,
                    put=partial(write_durably, unfinished=self._staging.path),
                )
        except BaseException:
            self.abort()
            raise

    def write(self, z: int, rows: slice, cols: slice, block: np.ndarray) -> None:
        """Write ``block``, (rows, cols), into slice ``z``."""
        check_block(self.spec, z, rows, cols, block)
        with system_errors(self._staging.final), shielded_from_signals():
            self._pyramid.arrays[0][z, rows, cols] = block

    def commit(self) -> None:
        """Make the pyramid and give the folder its final name."""
        with system_errors(self._staging.final):
            self._pyramid.finish()
            self._staging.publish()

    def abort(self) -> None:
        """Remove the unfinished folder."""
        self._staging.discard()

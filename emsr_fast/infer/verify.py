"""Whether an output is whole: every shard of every level there, decodable, its checksums right, its values finite."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from emsr_fast.errors import VolumeError
from emsr_fast.infer.trust_maps import GROUP
from emsr_fast.infer.workfolder import WorkFolder, work_path
from emsr_fast.io.formats import output_format
from emsr_fast.io.registry import open_source


def verify(path: str | Path) -> dict[str, Any]:
    """Check the output at ``path``, or OUT.partial while there is no output; return the problems as JSON values.

    Every voxel is decoded. Zarr checks the checksums in its files. Formats without checksums are only read.

    Raises:
        VolumeError: neither exists.
    """
    final = Path(path).resolve()
    work = WorkFolder(final)
    problems: list[str] = []
    checked = 0
    if final.exists():
        place = final
    elif work.exists():
        place = work.volume
        problems.append(f"{final} is not complete yet: {work.path} is what there is")
        problems += [f"slice {z}: {why}" for slices in work.marks.failed().values() for z, why in slices.items()]
    else:
        raise VolumeError(f"neither {final} nor {work_path(final)} exists; check the path")
    if place.is_dir() and any((place / mark).exists() for mark in ("zarr.json", ".zgroup")):
        results: Iterator[str | None] = itertools.chain(_zarr_shards(place), _maps(place))
    else:
        output_format(final)
        results = _slices(place)
    for problem in results:
        checked += 1
        if problem is not None:
            problems.append(problem)
    return {"output": str(place), "complete": not problems, "checked": checked, "problems": problems}


def _maps(path: Path) -> Iterator[str | None]:
    """Yield the same for the maps of trust inside an output, if it has any."""
    for map_folder in sorted((path / GROUP).glob("*/")):
        for problem in _zarr_shards(map_folder):
            yield None if problem is None else f"{GROUP}/{map_folder.name}: {problem}"


def _zarr_shards(path: Path) -> Iterator[str | None]:
    """Yield, for every shard and recorded failure, what is wrong with it or None."""
    try:
        group = zarr.open_group(str(path), mode="r")
        attributes = dict(group.attrs)
        multiscales: Any = attributes.get("ome", attributes)
        names = [dataset["path"] for dataset in multiscales["multiscales"][0]["datasets"]]
        arrays = [(name, group[name]) for name in names]
    except Exception as error:  # zarr raises many kinds for what is one thing to the user
        yield f"metadata cannot be read: {type(error).__name__}: {error}"
        return
    own: Any = attributes.get("emsr_fast", {})
    for z, reason in own.get("failed_slices", {}).items():
        yield f"slice {z} is 0: {reason}"
    for name, array in arrays:
        if not isinstance(array, zarr.Array):
            yield f"level {name} is not an array"
            continue
        sides = array.shards or array.chunks
        counts = [-(-size // side) for size, side in zip(array.shape, sides, strict=True)]
        for index in itertools.product(*map(range, counts)):
            yield _shard_problem(path, name, array, sides, index)


def _shard_problem(
    path: Path, name: str, array: zarr.Array, sides: tuple[int, ...], index: tuple[int, ...]
) -> str | None:
    key = f"{name}/{array.metadata.encode_chunk_key(index)}"
    if not (path / key).is_file():
        return f"{key} is missing"
    place = tuple(slice(at * side, (at + 1) * side) for at, side in zip(index, sides, strict=True))
    try:
        pixels = np.asarray(array[place])
    except Exception as error:  # each codec has its own
        return f"{key} cannot be decoded: {type(error).__name__}: {error}"
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        return f"{key} has {np.count_nonzero(~np.isfinite(pixels))} values that are not finite"
    return None


def _slices(path: Path) -> Iterator[str | None]:
    try:
        source = open_source(path)
    except VolumeError as error:
        yield str(error)
        return
    with source:
        depth, height, width = source.shape
        for z in range(depth):
            try:
                pixels = source.read(z, slice(0, height), slice(0, width))
            except VolumeError as error:
                yield str(error)
                continue
            finite = pixels.dtype.kind != "f" or bool(np.isfinite(pixels).all())
            yield None if finite else f"slice {z} has values that are not finite"

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
from emsr_fast.infer.written import WrittenFiles, hash_of_file, sum_as_text
from emsr_fast.io.formats import output_format
from emsr_fast.io.readers.parts.zarr_tree import is_zarr
from emsr_fast.io.readers.zarr import ContainedStore
from emsr_fast.io.registry import open_source

_NOTED = ("failed_slices", "checksums")  # by ``infer``, in an output's metadata


def verify(path: str | Path) -> dict[str, Any]:
    """Check the output at ``path``, or OUT.partial while there is no output; return the problems as JSON values.

    Every voxel is decoded. Zarr checks the checksums in its files. Formats without checksums are only read. The files
    of a Zarr output are also compared with the checksums that ``infer`` left in its metadata, and each file of
    OUT.partial with its own: so a file that was exchanged for another whole one is found.

    Raises:
        VolumeError: neither exists.
    """
    final = Path(path).resolve()
    work = WorkFolder(final)
    problems: list[str] = []
    checked = 0
    files: WrittenFiles | None = None
    if final.exists():
        place = final
    elif work.exists():
        place, files = work.volume, work.files
        files.look_again()
        problems.append(f"{final} is not complete yet: {work.path} is what there is")
        problems += [f"slice {z}: {why}" for slices in work.marks.failed().values() for z, why in slices.items()]
    else:
        raise VolumeError(f"neither {final} nor {work_path(final)} exists; check the path")
    if not is_zarr(place):
        output_format(final)
    results = _volume(place, files) if place.is_dir() else _slices(place)
    for problem in results:
        checked += 1
        if problem is not None:
            problems.append(problem)
    return {"output": str(place), "complete": not problems, "checked": checked, "problems": problems}


def _volume(volume: Path, files: WrittenFiles | None) -> Iterator[str | None]:
    """Yield, for every shard and recorded failure of an output and its maps of trust, what is wrong with it or None."""
    expected: dict[str, str] = {}
    for folder in (volume, *sorted((volume / GROUP).glob("*/"))):
        prefix = "" if folder == volume else f"{GROUP}/{folder.name}/"
        try:
            attributes, arrays = _opened(folder)
        except Exception as error:  # zarr raises many kinds for what is one thing to the user
            yield f"{prefix}metadata cannot be read: {type(error).__name__}: {error}"
            expected = {name: text for name, text in expected.items() if not name.startswith(prefix)}
            continue
        own: Any = attributes.get("emsr_fast", {})
        for z, reason in own.get("failed_slices", {}).items():
            yield f"{prefix}slice {z} is 0: {reason}"
        if folder == volume:
            expected = dict(own.get("checksums", {}))
        for name, array in arrays.items():
            checksum = expected.pop(f"{prefix}{name}", None)
            if isinstance(array, zarr.Array):
                yield from _level(volume, f"{prefix}{name}", array, files, checksum)
            else:
                yield f"{prefix}level {name} is no array"
    for name in expected:
        yield f"{name} is missing, or no metadata name it"


def _opened(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    group = zarr.open_group(ContainedStore(folder, read_only=True), mode="r")
    attributes = dict(group.attrs)
    own: Any = attributes.get("emsr_fast", {})
    if not isinstance(own, dict) or not all(isinstance(own.get(name, {}), dict) for name in _NOTED):
        raise ValueError("what infer noted in them is damaged")
    multiscales: Any = attributes.get("ome", attributes)
    names = [dataset["path"] for dataset in multiscales["multiscales"][0]["datasets"]]
    if not names:
        raise ValueError("they name no level")
    return attributes, {name: group[name] for name in names}


def _level(
    volume: Path, name: str, array: zarr.Array, files: WrittenFiles | None, expected: str | None
) -> Iterator[str | None]:
    sides = array.shards or array.chunks
    counts = [-(-size // side) for size, side in zip(array.shape, sides, strict=True)]
    total, damaged = 0, False
    for index in itertools.product(*map(range, counts)):
        key = f"{name}/{array.metadata.encode_chunk_key(index)}"
        place = tuple(slice(at * side, (at + 1) * side) for at, side in zip(index, sides, strict=True))
        problem = _shard_problem(volume / key, key, array, place)
        if problem is None and files is not None and files.hash_of(volume / key, read=True) is None:
            problem = f"{key} is not as written: changed, or a copy of another"
        if problem is None and expected is not None:
            total += hash_of_file(volume / key, volume)
        damaged = damaged or problem is not None
        yield problem
    if expected is not None and not damaged and sum_as_text(total) != expected:
        yield f"{name}: every file is whole, but they are not those written: some were exchanged, or changed since"


def _shard_problem(path: Path, key: str, array: zarr.Array, place: tuple[slice, ...]) -> str | None:
    try:
        size = path.stat().st_size
        if not path.is_file():
            return f"{key} is no file"
        if size == 0:
            return f"{key} is empty"  # zarr takes it for one of nothing but the fill value
    except (FileNotFoundError, NotADirectoryError):
        return f"{key} is missing"
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

"""Reads HDF5: one dataset of a file as a grey stack, chunk by chunk."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from emsr_fast.errors import EmsrError, UsageError, VolumeError
from emsr_fast.io.axes import Asked, Layout, chosen, layout_of
from emsr_fast.io.readers.parts import bigdataviewer, emd, imaris
from emsr_fast.io.readers.parts.array import ArraySource, check_chunk
from emsr_fast.io.readers.parts.attributes import axes_of, axistags_of, sizes_of
from emsr_fast.io.readers.parts.hdf5_filters import check_filters
from emsr_fast.io.readers.parts.missing_chunks import Stored, grid_of
from emsr_fast.io.volume import SourceVolume, VolumeInfo, check_pixels, instrument_name, pixel_dtype
from emsr_fast.wording import shell

_MOST_OBJECTS = 10_000
_MATLABS_OWN = ("#refs#", "#subsystem#")
_NO_LOCK = "another program has it open, or its file system has no locks: read without one"
_BEING_WRITTEN = "a program that writes it for readers (SWMR) has not closed it: read as far as it was written"


def open_source(path: Path, key: str | None, asked: Asked) -> SourceVolume:
    """Return the dataset ``key`` of the file, or the only image in it, opened for reading."""
    with opened(path) as (file, notes):
        listed = emd.images_of(file, images(file))
        name = chosen(listed if key else imaris.finest(file, listed, asked.channel), key_of(file, key, path), path)
        data = file[name]
        dtype = np.dtype(data.dtype)
        kind, instrument = "HDF5", ""
        if place := imaris.place_of(file, name):
            kind = "Imaris HDF5"
            if asked.channel not in (None, place.channel):
                raise UsageError(f"channel {asked.channel}: key {name!r} is channel {place.channel}; give one of them")
            layout, padded = imaris.without_padding(data, path)
            words = "ZYX"
            voxel_size_nm, stated, told = imaris.voxel_size(file, layout.stack)
            notes += [*padded, *told, *imaris.levels_note(file, place)]
        elif told_by_emd := emd.stated_of(file, name):
            kind, stated, instrument = told_by_emd.format, told_by_emd.sizes_from, told_by_emd.instrument
            layout, words = layout_of(data.shape, path, asked=asked, stated=told_by_emd.axes)
            voxel_size_nm = layout.in_order(told_by_emd.sizes_nm, None)
            notes += told_by_emd.notes
        else:
            layout, words = layout_of(data.shape, path, asked=asked, stated=_stated_axes(data))
            voxel_size_nm, stated = sizes_of(data.attrs, layout)
        if setup := bigdataviewer.place_of(file, name):
            voxel_size_nm, stated, told = bigdataviewer.voxel_size(path, file, setup)
            notes += told
            if dtype == np.int16:
                # made before its library knew numbers without a sign
                dtype = np.dtype(np.uint16)
                notes.append("BigDataViewer's int16 stands for uint16: read as uint16")
        return dataset_source(
            path, file, data, layout, dtype, notes, format=kind, key=name, axes=words,
            voxel_size_nm=voxel_size_nm, voxel_size_from=stated, instrument=instrument_name(instrument) or None,
        )  # fmt: skip


def dataset_source(
    path: Path,
    file: h5py.File,
    data: h5py.Dataset,
    layout: Layout,
    dtype: np.dtype,
    more_notes: Sequence[str] = (),
    **info: Any,
) -> SourceVolume:
    """Return a dataset as a stack.

    Args:
        dtype: its own, or the one without a sign, which its bytes stand for.
        info: what else is known about it.
    """
    dtype = dtype.newbyteorder("=")
    check_filters(data, path)
    notes = (*check_pixels(layout.stack, dtype, path), *more_notes)
    if data.chunks:
        check_chunk(data.chunks, dtype, path)
    else:
        _check_extent(data, path)
    chunks = layout.in_order(data.chunks, 1) if data.chunks else (1, *layout.stack[1:])
    told, absent = _stored(data).checked(path / str(data.name).strip("/"), data.fillvalue)
    described = VolumeInfo(
        path=path, shape=layout.stack, dtype=pixel_dtype(dtype), chunks=chunks, notes=(*notes, *told), absent=absent,
        **info,
    )  # fmt: skip
    return ArraySource(data, layout, described, chunked=bool(data.chunks), close=file.close)


@contextmanager
def opened(path: Path) -> Iterator[tuple[h5py.File, list[str]]]:
    """Open an HDF5 file; yield it with notes. It stays open after the block, unless the block fails."""
    file, notes = _open(path)
    try:
        yield file, notes
    except BaseException as error:
        file.close()
        if isinstance(error, Exception) and not isinstance(error, (EmsrError, MemoryError)):
            # h5py lets through whatever its library raises on a damaged header
            reason = f"{error}" or type(error).__name__
            raise VolumeError(f"{path} cannot be read as HDF5: {reason}; copy or export it again") from error
        raise


def _open(path: Path) -> tuple[h5py.File, list[str]]:
    notes: list[str] = []
    ways: dict[str, Any] = {}
    while True:
        try:
            return h5py.File(path, "r", **ways), notes
        except (OSError, RuntimeError, ValueError) as error:
            reason = f"{error}" or type(error).__name__
            if "unable to lock" in reason and "locking" not in ways:
                # as HDF5_USE_FILE_LOCKING=FALSE does: locks are for writers
                ways["locking"] = False
                notes.append(_NO_LOCK)
            elif "already open for" in reason and "swmr" not in ways:
                ways["swmr"] = True
                notes.append(_BEING_WRITTEN)
            else:
                raise VolumeError(f"{path} cannot be read as HDF5: {_advised(reason, path)}") from error


def _advised(reason: str, path: Path) -> str:
    """Return the library's message, shortened, and what to do about it."""
    if "already open for" in reason:
        # such a file has no other fault
        return (
            "the program that wrote it has not closed it; wait for its end, or if it was killed, clear its mark with: "
            f"{shell('h5clear', '-s', path)} (part of the HDF5 tools)"
        )
    if "unable to lock" in reason:
        return f"{reason}; set HDF5_USE_FILE_LOCKING=FALSE, or copy it to another file system"
    if "truncated file" in reason:
        return f"{reason}; copy it again, or if the program that wrote it was killed, write it again"
    return f"{reason}; copy or export it again"


def images(file: h5py.File, *, matlab: bool = False) -> dict[str, str]:
    """Return the names of all datasets of the file that can be a grey image or stack, each with a description.

    Args:
        matlab: whether to leave out MATLAB's own data and to give sides in its order.
    """
    found = {}
    for name, data in _walk(file, _MATLABS_OWN if matlab else ()):
        if _is_image(data) and not bigdataviewer.is_table(file, name):
            shape = data.shape[::-1] if matlab else data.shape
            found[name] = f"{' x '.join(map(str, shape))} {data.dtype.name}"
    return found


def key_of(file: h5py.File, key: str | None, path: Path) -> str | None:
    """Return ``key``; raise VolumeError with the reason if its pixels are in other files."""
    parts = key.split("/") if key else []
    for depth in range(1, len(parts) + 1):
        name = "/".join(parts[:depth])
        link = file.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise VolumeError(f"{path}: {name!r} is a link to another file ({link.filename}); open that file itself")
        if not isinstance(link, h5py.HardLink):
            break  # nothing of the file's own: the caller lists what there is
        item = file[name]
        if isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
            raise VolumeError(f"{path}: the pixels of {name!r} are in other files, not in it; copy them into one")
    return key


def _is_image(data: h5py.Dataset) -> bool:
    # other than numbers: text, references, compounds; a null dataspace has no shape
    if data.shape is None or data.dtype.kind not in "uifbc" or data.external or data.is_virtual:
        return False
    return sum(side > 1 for side in data.shape) >= 2


def _walk(file: h5py.File, skip: tuple[str, ...]) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yield every dataset once, by its name; links that lead elsewhere are not followed."""
    waiting: list[tuple[str, h5py.Group]] = [("", file)]
    seen: set[int] = set()
    while waiting and len(seen) < _MOST_OBJECTS:
        prefix, group = waiting.pop(0)
        for name in group:
            if (not prefix and name in skip) or not isinstance(group.get(name, getlink=True), h5py.HardLink):
                continue
            item = group[name]
            # groups may contain each other
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                continue
            seen.add(address)
            if isinstance(item, h5py.Group):
                waiting.append((f"{prefix}{name}/", item))
            elif isinstance(item, h5py.Dataset):
                yield f"{prefix}{name}", item


def _stored(data: h5py.Dataset) -> Stored:
    if not data.chunks:
        # in one piece, which is there or was never written
        return Stored(int(data.id.get_storage_size() > 0), 1, 1)
    total = math.prod(grid_of(data.shape, data.chunks))
    return Stored(min(data.id.get_num_chunks(), total), total, total)


def _check_extent(data: h5py.Dataset, path: Path) -> None:
    """Raise VolumeError if a contiguous dataset claims more pixels than its file has."""
    stored, claimed = data.id.get_storage_size(), math.prod(data.shape) * data.dtype.itemsize
    # none at all was never written
    if 0 < stored < claimed:
        raise VolumeError(
            f"{path} is corrupt: {data.name} has {stored} bytes where {claimed} are needed; copy it again"
        )


def _stated_axes(data: h5py.Dataset) -> str | None:
    tags = axistags_of(data.attrs.get("axistags"))
    return axes_of(tags or [dimension.label for dimension in data.dims], data.ndim)

"""Reads MATLAB files: v5 to v7, and v7.3, which is HDF5 with its axes reversed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from emsr_fast.errors import VolumeError
from emsr_fast.io.axes import Asked, chosen, layout_of
from emsr_fast.io.formats import MATLAB_MAGIC, begins_with
from emsr_fast.io.readers.hdf5 import dataset_source, images, key_of, opened
from emsr_fast.io.readers.parts.array import ArraySource
from emsr_fast.io.readers.parts.matlab_v5 import Variable, numbers, variables
from emsr_fast.io.volume import SourceVolume, VolumeInfo, check_pixels, pixel_dtype

_USUAL = "YXZ"  # rows, columns, slices
_NO_NUMBERS = ("char", "cell", "struct", "object", "sparse", "function_handle", "empty")


def open_source(path: Path, key: str | None, asked: Asked) -> SourceVolume:
    """Return the variable ``key``, or the only image in the file, opened for reading; axes in MATLAB's order."""
    if begins_with(path, MATLAB_MAGIC[1:]):
        return _open_v73(path, key, asked)
    return _open_v5(path, key, asked)


def _open_v73(path: Path, key: str | None, asked: Asked) -> SourceVolume:
    with opened(path) as (file, notes):
        name = chosen(images(file, matlab=True), key_of(file, key, path), path)
        data = file[name]
        kind = data.attrs.get("MATLAB_class", b"")
        _check_class(kind.decode("utf-8", "replace") if isinstance(kind, bytes) else str(kind), name, path)
        if data.attrs.get("MATLAB_empty", 0):
            raise VolumeError(f"{path}: variable {name!r} is empty; choose another with `key`")
        layout, words = layout_of(data.shape[::-1], path, asked=asked, usual=_USUAL)
        # MATLAB stores its columns first, HDF5 its last axis: the same bytes with the axes reversed
        return dataset_source(
            path, file, data, layout.reversed(), data.dtype, notes, format="MATLAB 7.3", key=name, axes=words
        )


def _open_v5(path: Path, key: str | None, asked: Asked) -> SourceVolume:
    found = {variable.name: variable for variable in variables(path)}
    listed = {
        name: f"{' x '.join(map(str, variable.shape))} {variable.kind}"
        for name, variable in found.items()
        if sum(side > 1 for side in variable.shape) >= 2 and variable.kind not in _NO_NUMBERS
    }
    if key in found:
        _check_class(found[key].kind, key, path)
    variable = found[chosen(listed, key, path)]
    _check_class(variable.kind, variable.name, path)
    dtype = np.dtype(variable.kind)
    layout, words = layout_of(variable.shape, path, asked=asked, usual=_USUAL)
    notes = check_pixels(layout.stack, dtype, path)
    if variable.stream:
        notes = (*notes, "compressed: read whole when it is first needed")
    info = VolumeInfo(
        path=path,
        format="MATLAB v5" if variable.stream is None else "MATLAB v7",
        key=variable.name,
        shape=layout.stack,
        dtype=pixel_dtype(dtype),
        axes=words,
        chunks=(1, *layout.stack[1:]) if variable.stream is None else layout.stack,
        notes=notes,
    )
    return ArraySource(_Numbers(path, variable), layout, info, chunked=False)


class _Numbers:
    """The numbers of a variable; they are read when the first part is asked for."""

    def __init__(self, path: Path, variable: Variable) -> None:
        self._path, self._variable = path, variable
        self._pixels: np.ndarray | None = None

    def __getitem__(self, where: Any) -> np.ndarray:
        if self._pixels is None:
            self._pixels = numbers(self._path, self._variable)
        part: np.ndarray = self._pixels[where]
        return part


def _check_class(kind: str, name: str, path: Path) -> None:
    if kind == "logical":
        raise VolumeError(
            f"{path}: variable {name!r} is logical, a mask and not a grey image; choose another with `key`"
        )
    if kind == "complex":
        raise VolumeError(f"{path}: variable {name!r} holds complex numbers; save its magnitude as single")
    if kind in _NO_NUMBERS:
        raise VolumeError(f"{path}: variable {name!r} is of class {kind}, not numbers; choose another with `key`")

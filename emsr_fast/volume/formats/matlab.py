"""MATLAB files in: v5 to v7 through scipy, v7.3, which is HDF5 with its axes reversed, through h5py."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from emsr_fast.errors import BackendError, VolumeError
from emsr_fast.volume.formats import MATLAB_MAGIC, begins_with
from emsr_fast.volume.formats.array import ArraySource
from emsr_fast.volume.formats.axes import Layout, chosen, layout_of
from emsr_fast.volume.formats.base import SourceVolume, VolumeInfo, check_pixels
from emsr_fast.volume.formats.hdf5 import dataset_source, images, key_of, opened

_USUAL = "YXZ"  # rows, columns, slices
_DTYPES = {name: name for name in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")} | {
    "single": "float32", "double": "float64", "logical": "bool",
}  # fmt: skip
# what deflate can at most make of a byte; more is a damaged header
_MOST_EXPANDED = 1032


def open_source(path: Path, key: str | None, axes: str | None) -> SourceVolume:
    """Return the variable ``key``, or the only image in the file, opened for reading; ``axes`` as MATLAB has them."""
    if begins_with(path, MATLAB_MAGIC[1:]):
        return _open_v73(path, key, axes)
    return _open_v5(path, key, axes)


def _open_v73(path: Path, key: str | None, axes: str | None) -> SourceVolume:
    with opened(path) as file:
        name = chosen(images(file, matlab=True), key_of(file, key, path), path)
        data = file[name]
        kind = data.attrs.get("MATLAB_class", b"")
        _check_class(kind.decode("utf-8", "replace") if isinstance(kind, bytes) else str(kind), name, path)
        if data.attrs.get("MATLAB_empty", 0):
            raise VolumeError(f"{path}: variable {name!r} is empty; choose another with --key")
        layout, words = layout_of(data.shape[::-1], path, asked=axes, usual=_USUAL)
        # MATLAB stores its columns first, HDF5 its last axis: the same bytes with the axes reversed
        return dataset_source(path, file, data, layout.reversed(), format="MATLAB 7.3", key=name, axes=words)


def _open_v5(path: Path, key: str | None, axes: str | None) -> SourceVolume:
    try:
        from scipy.io import whosmat
    except ImportError as error:
        raise BackendError(
            f"{path} is a MATLAB v5 file, which needs scipy: pip install 'emsr-fast[matlab]', or save it with -v7.3"
        ) from error
    try:
        variables = {name: (shape, kind) for name, shape, kind in whosmat(path)}
    except MemoryError:
        raise
    except Exception as error:  # scipy raises many kinds on damaged headers
        raise VolumeError(f"{path} cannot be read as MATLAB: {_reason(error)}; save it again") from error
    name = chosen({name: f"{' x '.join(map(str, shape))} {kind}" for name, (shape, kind) in variables.items()
                   if kind in _DTYPES and sum(side > 1 for side in shape) >= 2}, key, path)  # fmt: skip
    shape, kind = variables[name]
    _check_class(kind, name, path)
    dtype = np.dtype(_DTYPES[kind])
    layout, words = layout_of(shape, path, asked=axes, usual=_USUAL)
    # doubles may be stored as bytes, and bytes compressed
    if math.prod(shape) > _MOST_EXPANDED * path.stat().st_size:
        raise VolumeError(
            f"{path} is corrupt: {name} claims {shape} pixels, which its bytes cannot hold; save it again"
        )
    info = VolumeInfo(
        path=path,
        format="MATLAB v5",
        key=name,
        shape=layout.stack,
        dtype=dtype,
        axes=words,
        chunks=layout.stack,
        notes=(*check_pixels(layout.stack, dtype, path), "this format is read whole: it cannot be read in parts"),
    )
    return ArraySource(_Variable(path, name, layout, dtype), layout, info, chunked=False)


class _Variable:
    """A variable of a v5 file, decoded when it is first needed."""

    def __init__(self, path: Path, name: str, layout: Layout, dtype: np.dtype) -> None:
        self._path, self._name, self._layout, self._dtype = path, name, layout, dtype
        self._pixels: np.ndarray | None = None

    def __getitem__(self, where: Any) -> np.ndarray:
        if self._pixels is None:
            from scipy.io import loadmat

            pixels = loadmat(self._path, variable_names=[self._name])[self._name]
            if pixels.shape != self._layout.shape or pixels.dtype.newbyteorder("=") != self._dtype:
                raise VolumeError(
                    f"{self._path}: {self._name} is {pixels.shape} {pixels.dtype}, but its header says "
                    f"{self._layout.shape} {self._dtype}; save its real part as {self._dtype}"
                )
            self._pixels = pixels
        part: np.ndarray = self._pixels[where]
        return part


def _check_class(kind: str, name: str, path: Path) -> None:
    if kind == "logical":
        raise VolumeError(
            f"{path}: variable {name!r} is logical, a mask and not a grey image; choose another with --key"
        )
    if kind in ("char", "cell", "struct", "sparse", "function_handle"):
        raise VolumeError(f"{path}: variable {name!r} is of class {kind}, not numbers; choose another with --key")


def _reason(error: Exception) -> str:
    return f"{error}" or type(error).__name__

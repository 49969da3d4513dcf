"""EMD files, which are HDF5: those of Velox (Thermo Fisher) and of NCEM; their images, axes and pixel sizes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from emsr_fast.errors import VolumeError
from emsr_fast.io.readers.parts.hdf5_links import own
from emsr_fast.io.voxels import FLOAT32, LARGEST_PIXEL_NM, amount
from emsr_fast.reading import parse_json

_VELOX = re.compile(r"Data/Image/([^/]+)/Data")
_LONGEST_METADATA = 2**24  # bytes of a frame's metadata; Velox writes some 50,000
_MICROSCOPE = ("microscope name", "Microscope", "name")  # attributes, by different writers
_NEVER = "not stated in the file"
_ENERGIES = {"eV", "keV"}


@dataclass(frozen=True)
class Stated:
    """What a file of these kinds states of one image."""

    format: str
    axes: str | None  # their letters, slowest first; None if they are not named
    sizes_nm: tuple[float | None, ...]  # of a voxel along each stored axis
    sizes_from: str
    notes: tuple[str, ...] = ()
    instrument: str = ""


def images_of(file: h5py.File, names: Mapping[str, str]) -> dict[str, str]:
    """Return the images among ``names``, with their detectors; in files of other kinds, all of them.

    Raises:
        VolumeError: it is a Velox file without images.
    """
    if not _is_velox(file):
        data = {name: words for name, words in names.items() if _is_ncem(file, name)}
        return data or dict(names)
    images = {name: words for name, words in names.items() if _VELOX.fullmatch(name)}
    if not images:
        # Velox' own type for complex numbers is a structure, which is nowhere listed as an image
        stored = [own(file, f"Data/Image/{one}/Data") for one in own(file, "Data/Image") or ()]
        if any(isinstance(data, h5py.Dataset) and data.dtype.names for data in stored):
            raise VolumeError(f"{file.filename} holds complex numbers, such as a Fourier transform; give an image")
        raise VolumeError(f"{file.filename} is a Velox file without images, with spectra only; give another file")
    detectors = {name: str(_part(_metadata(file, name), "BinaryResult", "Detector") or "") for name in images}
    return {name: f"{detectors[name]}, {words}" if detectors[name] else words for name, words in images.items()}


def stated_of(file: h5py.File, name: str) -> Stated | None:
    """Return what the file states of its image ``name``; None if it is of another kind."""
    if _is_velox(file) and _VELOX.fullmatch(name):
        return _stated_by_velox(file, name)
    return _stated_by_ncem(file, name) if _is_ncem(file, name) else None


def _is_velox(file: h5py.File) -> bool:
    version = own(file, "Version")
    images = own(file, "Data/Image")
    if isinstance(images, h5py.Group) and any(own(file, f"Data/Image/{one}/Metadata") is not None for one in images):
        return True
    return isinstance(version, h5py.Dataset) and version.size == 1 and b"Velox" in bytes(np.ravel(version[()])[0])


def _stated_by_velox(file: h5py.File, name: str) -> Stated:
    data, found = file[name], _metadata(file, name)
    notes: list[str] = []
    sizes: list[float | None] = []
    for axis, side in (("Y", "height"), ("X", "width")):
        size = _number(_part(found, "BinaryResult", "PixelSize", side))
        unit = _part(found, "BinaryResult", f"PixelUnit{axis}")
        what = f"Velox' pixel size {axis.lower()}"
        sizes.append(_size(size, str(unit), what, notes) if size is not None and unit else None)
    # frames come last
    axes = "YXZ"[: data.ndim] if data.ndim in (2, 3) else None
    known = (*sizes, *[None] * (data.ndim - 2)) if axes else (None,) * data.ndim
    made_by = " ".join(
        str(_part(found, "Instrument", part) or "") for part in ("Manufacturer", "InstrumentClass", "InstrumentModel")
    )
    return Stated("Velox EMD", axes, known, "Velox metadata" if any(sizes) else _NEVER, tuple(notes), made_by)


def _metadata(file: h5py.File, name: str) -> Any:
    """Return the metadata of the first frame of a Velox image, {} if they cannot be read."""
    table = own(file, name.removesuffix("Data") + "Metadata")
    if not isinstance(table, h5py.Dataset) or table.ndim != 2 or table.dtype != np.uint8:
        return {}
    if table.shape[1] < 1 or not 0 < table.shape[0] <= _LONGEST_METADATA:
        return {}
    text = bytes(table[:, 0]).split(b"\0", 1)[0]
    try:
        return parse_json(text)
    except ValueError:
        return {}


def _is_ncem(file: h5py.File, name: str) -> bool:
    group = own(file, name.rpartition("/")[0]) if "/" in name else None
    if not isinstance(group, h5py.Group) or not name.endswith("/data"):
        return False
    # version 1.0 has words for its types
    kind = group.attrs.get("emd_group_type")
    return _number(kind) == 1 or _text(kind) == "array"


def _stated_by_ncem(file: h5py.File, name: str) -> Stated:
    data, folder = file[name], name.rpartition("/")[0]
    notes: list[str] = []
    letters: list[str] = []
    sizes: list[float | None] = []
    # version 1.0 counts from 0
    first = 0 if own(file, f"{folder}/dim0") is not None else 1
    vectors = [own(file, f"{folder}/dim{axis + first}") for axis in range(data.ndim)]
    if not _fit(vectors, data.shape) and _fit(vectors[::-1], data.shape):
        vectors.reverse()  # some writers count from the fastest axis
    for vector in vectors:
        if not isinstance(vector, h5py.Dataset) or vector.ndim != 1:
            letters.append("")
            sizes.append(None)
            continue
        letters.append(_text(vector.attrs.get("name")).strip().upper())
        # units are written as [n_m]
        unit = _text(vector.attrs.get("units")).strip("[] ").replace("_", "")
        step = _step(vector)
        if unit in _ENERGIES:
            raise VolumeError(
                f"{file.filename}: {name} is a spectrum image, one of its axes is in {unit}; give an image"
            )
        what = f"the step of {vector.name.rpartition('/')[2]}"
        sizes.append(_size(step, unit, what, notes) if step and unit else None)
    # what is neither Y nor X are slices, such as angles or times
    if len(letters) == 3 and {"Y", "X"} < set(letters):
        letters = [letter if len(letter) == 1 else "Z" for letter in letters]
    named = all(len(letter) == 1 and letter.isalpha() for letter in letters) and {"Y", "X"} <= set(letters)
    axes = "".join(letters) if named and len(set(letters)) == len(letters) else None
    microscope = own(file, "microscope")
    told = microscope.attrs if isinstance(microscope, h5py.Group) else {}
    made_by = next((text for name in _MICROSCOPE if (text := _text(told.get(name)))), "")
    return Stated("NCEM EMD", axes, tuple(sizes), "EMD dim vectors" if any(sizes) else _NEVER, tuple(notes), made_by)


def _size(step: float, unit: str, what: str, notes: list[str]) -> float | None:
    size_nm = amount(step, unit, what, notes, FLOAT32)
    if size_nm is not None and size_nm >= LARGEST_PIXEL_NM:
        # of diffraction patterns, some writers say m where they mean 1/m
        notes.append(f"{what} ignored: {step:g} {unit} is no pixel of a microscope")
        return None
    return size_nm


def _fit(vectors: Sequence[object], shape: Sequence[int]) -> bool:
    """Return whether each vector has a value for each pixel of its axis, or two that stand for all."""
    return all(
        isinstance(vector, h5py.Dataset) and vector.size in (2, side)
        for vector, side in zip(vectors, shape, strict=True)
    )


def _step(vector: h5py.Dataset) -> float | None:
    """Return the distance from one pixel to the next; two values may stand for all."""
    if vector.size < 2 or vector.dtype.kind not in "uif":
        return None
    first, second, last = (float(vector[place]) for place in (0, 1, vector.size - 1))
    # over the whole length, float32 values round less
    return (last - first) / (vector.size - 1) if np.isfinite(last) else second - first


def _part(values: Any, *path: str) -> Any:
    for name in path:
        values = values.get(name) if isinstance(values, Mapping) else None
    return values


def _number(value: Any) -> float | None:
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if np.isfinite(found) else None


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else "" if value is None else str(value)

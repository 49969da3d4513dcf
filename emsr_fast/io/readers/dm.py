"""DigitalMicrograph in: images and stacks of DM3 and DM4 files, as Gatan cameras and 3View write them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from struct import calcsize

import numpy as np

from emsr_fast.errors import VolumeError
from emsr_fast.io.axes import Asked, chosen, layout_of
from emsr_fast.io.readers.parts.array import ArraySource
from emsr_fast.io.readers.parts.dm_tags import Group, StoredArray, TagFile, read_tags
from emsr_fast.io.readers.parts.file_array import FileArray
from emsr_fast.io.readers.parts.files import DamagedError
from emsr_fast.io.volume import SourceVolume, VolumeInfo, check_pixels, instrument_name, pixel_dtype
from emsr_fast.io.voxels import FLOAT32, LARGEST_PIXEL_NM, UNKNOWN, nanometres
from emsr_fast.wording import shortened

_DTYPES = {1: "i2", 2: "f4", 6: "u1", 7: "i4", 9: "i1", 10: "u2", 11: "u4", 12: "f8", 14: "?", 39: "i8", 40: "u8"}
_COLOURS, _COMPLEX = (8, *range(15, 27)), (3, 5, 13, 27, 28)
# of the microscope, then of the camera
_NAMES = (
    ("Microscope Info", "Name"),
    ("Microscope Info", "Microscope"),
    ("Session Info", "Microscope"),
    ("Acquisition", "Device", "Name"),
    ("DataBar", "Device Name"),
)
_ENERGIES = {"eV", "keV"}


@dataclass(frozen=True)
class _Image:
    """One entry of a file's list of images that is an image or a stack."""

    name: str
    pixels: StoredArray
    dtype: np.dtype
    shape: tuple[int, ...]  # slowest axis first
    steps: tuple[tuple[float, str], ...]  # pixel size and its unit, as stored, for each axis
    instrument: str

    @property
    def words(self) -> str:
        """What it is, for a list to choose from."""
        return f"{shortened(self.name) + ', ' if self.name else ''}{' x '.join(map(str, self.shape))} {self.dtype.name}"


def open_source(path: Path, key: str | None, asked: Asked) -> SourceVolume:
    """Return the image ``key`` of the file, or the only one beside its thumbnail, opened for reading."""
    tags = read_tags(path)
    images, refused = _images(tags, path)
    if not images and key is None:
        each = Counter(refused.values()).items()
        held = ", ".join(what + (f" ({number} times)" if number > 1 else "") for what, number in each)
        raise VolumeError(f"{path} has no grey image in it, but {held or 'an empty list'}; give another file")
    if key in refused:
        raise VolumeError(f"{path}: image {key} is {refused[key]}; name another image")
    image = images[chosen({name: found.words for name, found in images.items()}, key, path)]
    layout, words = layout_of(image.shape, path, asked=asked, stated="ZYX"[-len(image.shape) :])
    notes: list[str] = []
    sizes = tuple(_size(*step, letter, notes) for step, letter in zip(image.steps, layout.names, strict=True))
    voxel_size_nm = layout.in_order(sizes, None)
    begin, plane = image.pixels.offset, prod(image.shape[-2:]) * image.dtype.itemsize
    array = FileArray(
        path, range(begin, begin + prod(image.shape) * image.dtype.itemsize, plane), image.dtype, image.shape
    )
    info = VolumeInfo(
        path=path,
        format=f"DigitalMicrograph {tags.version}",
        shape=layout.stack,
        dtype=pixel_dtype(image.dtype),
        axes=words,
        chunks=(1, *layout.stack[1:]),
        voxel_size_nm=voxel_size_nm,
        voxel_size_from="DigitalMicrograph calibration" if voxel_size_nm != UNKNOWN else "not stated in the file",
        notes=(*check_pixels(layout.stack, image.dtype, path), *dict.fromkeys(notes)),
        key=next(name for name, found in images.items() if found is image) if len(images) > 1 else None,
        instrument=instrument_name(image.instrument) or None,
    )
    return ArraySource(array, layout, info, chunked=False, close=array.close)


def _images(tags: TagFile, path: Path) -> tuple[dict[str, _Image], dict[str, str]]:
    """Return the images by their position in the file's list, and what the other entries are."""
    listed = tags.root.group("ImageList").entries
    thumbnails = {
        entry.number("ImageIndex") for _, entry in tags.root.group("Thumbnails").entries if isinstance(entry, Group)
    }
    if not thumbnails and len(listed) > 1:
        thumbnails = {0}
    images: dict[str, _Image] = {}
    refused: dict[str, str] = {}
    for number, (_, entry) in enumerate(listed):
        if number in thumbnails and len(listed) > 1:
            continue
        found = _image(entry, tags.order, path) if isinstance(entry, Group) else "an entry of another kind"
        if isinstance(found, str):
            refused[str(number)] = found
        else:
            images[str(number)] = found
    return images, refused


def _image(entry: Group, order: str, path: Path) -> _Image | str:
    """Return the image that an entry is, or in words what else."""
    data = entry.group("ImageData")
    pixels, kind = data.get("Data"), data.number("DataType")
    sides = [
        side for _, side in data.group("Dimensions").entries if isinstance(side, int) and not isinstance(side, bool)
    ]
    scales = data.group("Calibrations", "Dimension")
    units = [scales.text(axis, "Units") for axis in range(len(sides))]
    form = entry.text("ImageTags", "Meta Data", "Format")
    if len(sides) < 2 or _ENERGIES & set(units) or form.startswith("Spectrum"):
        return "a spectrum"
    if kind in _COLOURS:
        return "one in colour (RGB)"
    if kind in _COMPLEX:
        return "one of complex numbers, of which the magnitude can be exported"
    if kind not in _DTYPES:
        return f"one of the data type {kind}, which is not read"
    # axes of one pixel beside y and x, such as the time of a single frame
    kept = [axis for axis, side in enumerate(sides) if axis < 2 or side != 1]
    if len(kept) > 3:
        return f"an array of {len(sides)} axes ({' x '.join(map(str, reversed(sides)))}), where a stack has three"
    dtype = np.dtype(order + _DTYPES[int(kind)])
    if not isinstance(pixels, StoredArray):
        return "one without pixels"
    stored = pixels.count * calcsize("=" + pixels.codes)
    if min(sides) < 1 or prod(sides) * dtype.itemsize != stored:
        raise DamagedError(
            f"{path} is damaged: an image of {' x '.join(map(str, reversed(sides)))} {dtype.name} has "
            f"{stored} bytes of pixels; copy it again"
        )
    steps = [(scales.number(axis, "Scale") or 0.0, units[axis]) for axis in kept[::-1]]
    return _Image(
        entry.text("Name"),
        pixels,
        dtype,
        tuple(sides[axis] for axis in kept[::-1]),
        tuple(steps),
        _instrument(entry.group("ImageTags")),
    )


def _instrument(tags: Group) -> str:
    """Return the microscope's name, else the camera's, "" if there is neither."""
    vendor = tags.text("Microscope Info", "Type", "Vendor")
    name = next((text for path in _NAMES if (text := tags.text(*path).strip())), "")
    return name if vendor.lower() in name.lower() else f"{vendor} {name}"


def _size(scale: float, unit: str, letter: str, notes: list[str]) -> float | None:
    """Return the size of a pixel along one axis in nm, None where it is not stated or is no length."""
    if not unit:
        return None
    size_nm = nanometres(abs(scale), unit, FLOAT32)
    if size_nm is None:
        notes.append(f"the calibration of {letter.lower()} is not a length ({scale:g} {unit}): taken as unknown")
    elif size_nm >= LARGEST_PIXEL_NM:
        notes.append(
            f"the calibration of {letter.lower()} ({scale:g} {unit}) is no pixel of a microscope: taken as unknown"
        )
        return None
    return size_nm

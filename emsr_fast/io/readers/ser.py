"""SER in: images and series of FEI's TIA, versions 0x210 and 0x220; the .emi file beside one is not needed."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from emsr_fast.errors import VolumeError
from emsr_fast.io.axes import Asked, layout_of
from emsr_fast.io.readers.parts.array import ArraySource
from emsr_fast.io.readers.parts.file_array import FileArray
from emsr_fast.io.readers.parts.files import DamagedError
from emsr_fast.io.volume import SourceVolume, VolumeInfo, check_pixels, pixel_dtype
from emsr_fast.io.voxels import FLOAT32, LARGEST_PIXEL_NM, UNKNOWN, meant
from emsr_fast.wording import counted

_VERSIONS = {0x210: "i", 0x220: "q"}  # and how wide a place in the file is
_SPECTRA, _IMAGES = 0x4120, 0x4122
_DTYPES = {1: "u1", 2: "<u2", 3: "<u4", 4: "i1", 5: "<i2", 6: "<i4", 7: "<f4", 8: "<f8"}
_COMPLEX = (9, 10)
_ELEMENT = "<ddiddihii"  # x: offset, step, pixel of the offset; y likewise; data type; width and height
_NM_PER_METRE = 1e9


@dataclass(frozen=True)
class _Element:
    """What stands before the pixels of one image."""

    begin: int  # of the pixels
    kind: int
    width: int
    height: int
    step_x: float  # m, 0 where unknown
    step_y: float


def open_source(path: Path, key: str | None, asked: Asked) -> SourceVolume:
    """Return the image or the series of images in the file, opened for reading."""
    if key is not None:
        raise VolumeError(f"{path} is a SER file, which holds one series: leave `key={key}` out")
    with path.open("rb") as file:
        try:
            version, elements, expected = _elements(file, path)
        except struct.error as error:
            raise DamagedError(f"{path} is truncated: it ends within its header; copy it again") from error
    first, notes = elements[0], []
    blank = [number for number, element in enumerate(elements) if not (element.kind or element.width or element.height)]
    if blank and 0 not in blank:
        # their pixels are there: the file is as long as it should be, which is looked at below
        elements = [replace(first, begin=one.begin) if number in blank else one for number, one in enumerate(elements)]
        notes.append(f"{counted(len(blank), 'image')} of the series without a size or type: taken as image 0's")
    if first.kind in _COMPLEX:
        raise VolumeError(f"{path} holds complex numbers; export its magnitude")
    if first.kind not in _DTYPES or min(first.width, first.height) < 1:
        raise DamagedError(
            f"{path} is damaged: its first image has data type {first.kind} and {first.width} x {first.height} pixels; "
            "copy it again"
        )
    for number, element in enumerate(elements):
        if (element.kind, element.width, element.height) != (first.kind, first.width, first.height):
            raise VolumeError(
                f"{path} has images of different sizes or types: image {number} is {element.height} x {element.width}, "
                f"image 0 is {first.height} x {first.width}; export those that belong together"
            )
    if len(elements) < expected:
        notes.append(f"{len(elements)} of the {expected} images that were planned have been recorded")
    dtype, shape = np.dtype(_DTYPES[first.kind]), (len(elements), first.height, first.width)
    layout, words = layout_of(shape, path, asked=asked, stated="ZYX")
    array = FileArray(path, [element.begin for element in elements], dtype, shape, bottom_up=True)
    sizes = (None, _size(first.step_y), _size(first.step_x))
    voxel_size_nm = layout.in_order(sizes, None)
    info = VolumeInfo(
        path=path,
        format=f"TIA SER 0x{version:x}",
        shape=layout.stack,
        dtype=pixel_dtype(dtype),
        axes=words,
        chunks=(1, *layout.stack[1:]),
        voxel_size_nm=voxel_size_nm,
        voxel_size_from="SER calibration" if voxel_size_nm != UNKNOWN else "not stated in the file",
        notes=(*check_pixels(layout.stack, dtype, path), *notes),
    )
    return ArraySource(array, layout, info, chunked=False, close=array.close)


def _elements(file: BinaryIO, path: Path) -> tuple[int, list[_Element], int]:
    """Return the version, the images that were recorded, and how many were planned."""
    version, content, _tags, planned, recorded = _unpack(file, "<4xhiiii")
    if version not in _VERSIONS:
        raise VolumeError(
            f"{path} is SER of version 0x{version:x}; versions 0x210 and 0x220 are read: export it as TIFF"
        )
    if content == _SPECTRA:
        raise VolumeError(f"{path} holds spectra, not images; give an image")
    if content != _IMAGES:
        raise DamagedError(
            f"{path} is damaged: its content is of type 0x{content:x}, neither images nor spectra; copy it again"
        )
    wide = _VERSIONS[version]
    (at,) = _unpack(file, f"<{wide}")
    if recorded == 0 <= planned:
        raise VolumeError(
            f"{path} holds no image: none of the {planned} that were planned was recorded; give another file"
        )
    size = os.fstat(file.fileno()).st_size
    listed = planned * struct.calcsize(wide)
    # each image takes its description at least
    fits = 0 <= at <= size - listed - recorded * struct.calcsize(_ELEMENT)
    if not 0 < recorded <= planned or not fits:
        raise DamagedError(
            f"{path} is truncated or damaged: its list of {planned} images, {recorded} of them recorded, "
            f"should begin at byte {at} of {size}; copy it again"
        )
    file.seek(at)
    places = _unpack(file, f"<{recorded}{wide}")
    return version, [_element(file, place, size, path) for place in places], planned


def _element(file: BinaryIO, place: int, size: int, path: Path) -> _Element:
    begin = place + struct.calcsize(_ELEMENT)
    if place < 0 or begin > size:
        raise DamagedError(
            f"{path} is truncated or damaged: an image should begin at byte {place} of {size}; copy it again"
        )
    file.seek(place)
    _, step_x, _, _, step_y, _, kind, width, height = _unpack(file, _ELEMENT)
    return _Element(begin, kind, width, height, step_x, step_y)


def _unpack(file: BinaryIO, layout: str) -> tuple[Any, ...]:
    return struct.unpack(layout, file.read(struct.calcsize(layout)))


def _size(step: float) -> float | None:
    """Return the pixel size in nm; 1 m is what TIA writes where it knows none, and larger ones are of diffraction."""
    size_nm = abs(step) * _NM_PER_METRE
    return meant(size_nm, FLOAT32) if 0 < size_nm < LARGEST_PIXEL_NM else None

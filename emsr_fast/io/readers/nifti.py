"""NIfTI-1 and NIfTI-2 in: the header by nibabel, the pixels from their place in the file; ``.nii.gz``, too."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from emsr_fast.errors import VolumeError
from emsr_fast.io.axes import Asked
from emsr_fast.io.readers.parts.extra import needed, reading
from emsr_fast.io.readers.parts.flat import Flat, flat_source
from emsr_fast.io.readers.parts.nifti_mark import HEADER_BYTES, begin_of, mark_of
from emsr_fast.io.readers.parts.packed import packing_of, unpacked
from emsr_fast.io.volume import SourceVolume
from emsr_fast.io.voxels import FLOAT32, amount

_COLOURS = (128, 2304)
_LETTERS = "WVCTZYX"  # of NIfTI's seven axes, the fastest last


def open_source(path: Path, key: str | None, asked: Asked) -> SourceVolume:
    """Return the volume of the file, opened for reading."""
    if key is not None:
        raise VolumeError(f"{path} is a NIfTI file, which holds one volume: leave `key={key}` out")
    with needed("nibabel", path):
        import nibabel
    begin = begin_of(path)
    mark = mark_of(begin) or b""
    if mark.startswith(b"ni"):
        raise VolumeError(f"{path} has its pixels in another file (.img); save both as one .nii file")
    with reading(path, "NIfTI"):
        flat = _flat(nibabel, begin, int(mark[2:3]), path)
    if packing_of(path) is None:
        return flat_source(path, flat, asked)
    return flat_source(path, flat, asked, lambda needed: unpacked(path, needed))


def _flat(nibabel: Any, begin: bytes, version: int, path: Path) -> Flat:
    kind = {1: nibabel.Nifti1Header, 2: nibabel.Nifti2Header}[version]
    # without the extensions, which may claim any length
    size = HEADER_BYTES[version]
    header = kind.from_fileobj(io.BytesIO(begin[:size].ljust(size, b"\0") + bytes(4)), check=False)
    if int(header["datatype"]) in _COLOURS:
        raise VolumeError(f"{path} is a colour image (RGB); convert it to grey first")
    shape = tuple(int(side) for side in header.get_data_shape())
    offset, dtype = int(header["vox_offset"]), np.dtype(header.get_data_dtype())
    if len(shape) < 2 or min(shape) < 1 or len(shape) > len(_LETTERS) or offset < size:
        raise VolumeError(
            f"{path} is damaged: its header states the sides {shape} and pixels from byte {offset}; copy it again"
        )
    notes: list[str] = []
    slope, inter = header.get_slope_inter()
    sizes = _sizes(header, len(shape), notes)
    return Flat(
        format=f"NIfTI-{version}",
        dtype=dtype,
        shape=shape[::-1],
        axes=_LETTERS[-len(shape) :],
        offset=offset,
        sizes_nm=(*[None] * (len(shape) - len(sizes)), *sizes[::-1]),
        sizes_from="NIfTI pixdim",
        notes=tuple(notes),
        line=(1.0 if slope is None else slope, inter or 0.0),
    )


def _sizes(header: Any, axes: int, notes: list[str]) -> list[float | None]:
    """Return the voxel size in nm along x, y and z."""
    steps = [float(step) for step in header.get_zooms()[: min(axes, 3)]]
    unit = str(header.get_xyzt_units()[0])
    if unit == "unknown":
        return [None] * len(steps)
    if unit == "mm" and all(step == 1 for step in steps):
        notes.append("its header says 1 mm per voxel, which writers put when they do not know: taken as unknown")
        return [None] * len(steps)
    return [amount(step, unit, f"pixdim {axis}", notes, FLOAT32) for axis, step in zip("xyz", steps, strict=False)]

"""Reads MRC: volumes and image stacks of MRC2014 and IMOD, mapped into memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mrcfile import utils
from mrcfile.constants import IMAGE_STACK_SPACEGROUP
from mrcfile.dtypes import HEADER_DTYPE

from emsr_fast.errors import EmsrError, VolumeError
from emsr_fast.io.axes import Asked, layout_of
from emsr_fast.io.readers.parts.array import ArraySource
from emsr_fast.io.readers.parts.mrc_header import HEADER_BYTES, MrcHeader, read_header
from emsr_fast.io.readers.parts.packed import packing_of, unpacked
from emsr_fast.io.volume import SourceVolume, VolumeInfo, check_pixels, pixel_dtype
from emsr_fast.io.voxels import FLOAT32, UNKNOWN, VoxelSize, amount, meant

# IMOD marks its files in the space that the standard leaves free, and says there whether bytes have a sign
_IMOD_STAMP, _STAMP_AT, _FLAGS_AT = 1146047817, 152, 156
# what is looked at where no header says whether bytes have a sign: so many values to each side of 0 and of 128
_SAMPLED_SLICES, _SAMPLED_PIXELS, _NEAR, _FEW = 16, 2**18, 8, 1e-3
_SIGNED, _ORIGIN_INVERTED, _TWO_IN_A_BYTE = 1, 4, 16


def open_source(path: Path, key: str | None, asked: Asked) -> SourceVolume:
    """Return the MRC volume at ``path``, opened for reading."""
    if key is not None:
        raise VolumeError(f"{path} is an MRC file, which holds one volume: leave `key={key}` out")
    head = read_header(path)
    try:
        return _source(path, head, asked)
    except (ValueError, OSError, TypeError, OverflowError) as error:
        if isinstance(error, EmsrError):
            raise
        raise VolumeError(f"{path} cannot be read as MRC: {error}; copy or export it again") from error


def _source(path: Path, head: MrcHeader, asked: Asked) -> SourceVolume:
    header = np.frombuffer(head.raw, HEADER_DTYPE.newbyteorder(head.order)).reshape(()).view(np.recarray)
    data = _mapped(path, head, utils.data_dtype_from_header(header), utils.data_shape_from_header(header))
    notes = list(head.notes)
    stamp, flags = (int(np.frombuffer(head.raw, f"{head.order}i4", 1, at)[0]) for at in (_STAMP_AT, _FLAGS_AT))
    imod_flags = flags if stamp == _IMOD_STAMP else None
    reason = _why_unsigned(header, data.dtype, imod_flags, path)
    # IMOD's mark is about bytes alone
    if not reason and data.dtype.kind == "i" and (data.itemsize == 2 or imod_flags is None):
        reason = _sign_by_values(header, data, notes)
    if reason:
        data = data.view(data.dtype.str.replace("i", "u"))
        notes.append(f"{reason}: read as {data.dtype.name}")
    if data.ndim == 4 and data.shape[0] > 1:
        raise VolumeError(f"{path} holds {data.shape[0]} volumes; save the one you want by itself")
    layout, words = layout_of(data.shape, path, asked=asked, stated=_stored_axes(header, data.ndim, path))
    dtype = data.dtype.newbyteorder("=")
    voxel_size_nm = _voxel_size(header, notes)
    kind = bytes(header["exttyp"]).strip(b"\0 ")
    sign = -1 if stamp == _IMOD_STAMP and flags & _ORIGIN_INVERTED else 1
    carried = {}
    if head.numbers.extended:
        named = kind.decode("ascii", "replace") or "of no stated kind"
        notes.append(f"extended header {named}, {head.numbers.extended} bytes; kept in MRC output")
        carried["mrc_header_of"] = str(path.absolute())
    info = VolumeInfo(
        path=path,
        format="MRC image stack" if data.ndim == 3 and header.ispg == IMAGE_STACK_SPACEGROUP else "MRC",
        shape=layout.stack,
        dtype=pixel_dtype(dtype),
        axes=words,
        chunks=(1, *layout.stack[1:]),
        voxel_size_nm=voxel_size_nm,
        voxel_size_from="MRC cell" if voxel_size_nm != UNKNOWN else "not stated in the file",
        # without the mark, other numbers stand there
        position_nm=_position(header.origin, sign) if head.marked else UNKNOWN,
        notes=(*check_pixels(layout.stack, dtype, path), *notes),
        carried=carried,
    )
    return ArraySource(data, layout, info, chunked=False)


def _mapped(path: Path, head: MrcHeader, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Return the voxels mapped into memory; a compressed file is first unpacked to a temporary file without a name."""
    begin, needed = HEADER_BYTES + head.numbers.extended, head.numbers.needed
    if packing_of(path) is None:
        return np.memmap(path, dtype, "r", begin, shape)
    with unpacked(path, needed) as file:
        return np.memmap(file, dtype, "r", begin, shape)


def _why_unsigned(header: Any, dtype: np.dtype, imod_flags: int | None, path: Path) -> str:
    """Return why integers are read as unsigned although the standard says signed; "" if they are signed."""
    if dtype == np.int8 and imod_flags is not None:
        if imod_flags & _TWO_IN_A_BYTE:
            raise VolumeError(f"{path} has two pixels of 4 bits in each byte, which is not read; save it as mode 1")
        return "" if imod_flags & _SIGNED else "IMOD's mark says that its bytes have no sign"
    if dtype.kind != "i":
        return ""
    # other writers leave no mark, but the smallest and largest value, which may be neither set nor true
    low, high = float(header.dmin), float(header.dmax)
    limits = np.iinfo(dtype)
    if low >= 0 and limits.max < high <= limits.max - limits.min:
        return f"its header has values from {low:g} to {high:g}, which {dtype.name} cannot hold"
    return ""


def _sign_by_values(header: Any, data: np.ndarray, notes: list[str]) -> str:
    """Return why the values themselves show that integers have no sign; "" if they have one, or if it cannot be told.

    The grey values of an image are close to each other. If signed, many are close to 255 and 0 as bytes (-1 and 0). If
    unsigned, many are close to 127 and 128, which would be the two ends of a signed range.
    """
    depth = int(np.prod(data.shape[:-2], dtype=int))
    step = max(1, int(np.ceil(np.sqrt(data.shape[-2] * data.shape[-1] / _SAMPLED_PIXELS))))
    slices = data.view(data.dtype.str.replace("i", "u")).reshape(depth, *data.shape[-2:])
    shift = 8 * (data.itemsize - 1)
    chosen = np.unique(np.linspace(0, depth - 1, min(depth, _SAMPLED_SLICES)).round().astype(int))
    counts = sum(
        (np.bincount(slices[z, ::step, ::step].ravel() >> shift & 255, minlength=256) for z in chosen),
        start=np.zeros(256, int),
    )
    if not counts[128:].any():
        return ""  # the same with and without
    around_0 = min(counts[:_NEAR].sum(), counts[-_NEAR:].sum())
    around_128 = min(counts[128 - _NEAR : 128].sum(), counts[128 : 128 + _NEAR].sum())
    few = _FEW * counts.sum()
    if around_128 > 10 * around_0 + few:
        return "its values read with a sign would be at both ends of their range and not around 0"
    low, high = float(header.dmin), float(header.dmax)
    if data.itemsize == 1 and not (-128 <= low < 0 and low < high <= 127) and around_0 <= 10 * around_128 + few:
        notes.append("the header does not say whether bytes have a sign: read as int8")
    return ""


def _stored_axes(header: Any, dimensions: int, path: Path) -> str:
    """Return the axes of sections, rows and columns; old writers leave them out."""
    order = [int(header[name]) for name in ("maps", "mapr", "mapc")]
    if order == [0, 0, 0]:
        order = [3, 2, 1]
    if sorted(order) != [1, 2, 3]:
        raise VolumeError(f"{path} is corrupt: its axes are {order[2]}, {order[1]}, {order[0]} instead of 1, 2 and 3")
    return "".join(" XYZ"[number] for number in order).rjust(dimensions, "V")[-dimensions:]


def _position(origin: Any, sign: int) -> VoxelSize:
    """Return the origin in nm; zeros, and values that are no numbers, mean that the writer knew of none."""
    z, y, x = (meant(sign * float(origin[axis]) / 10, FLOAT32) for axis in "zyx")
    return (z, y, x) if np.isfinite([z, y, x]).all() and any((z, y, x)) else UNKNOWN


def _voxel_size(header: Any, notes: list[str]) -> VoxelSize:
    # x, y and z of the cell and its grid, whatever the order in which they are stored
    cells = [(float(header.cella[axis]), int(header[f"m{axis}"])) for axis in "zyx"]
    sizes = [
        amount(cell / count, "angstrom", f"cell along {axis}", notes, FLOAT32)
        if count > 0 and cell and np.isfinite(cell)
        else None
        for axis, (cell, count) in zip("zyx", cells, strict=True)
    ]
    if all(size is not None and abs(size - 0.1) < 1e-6 for size in sizes):
        notes.append("its cell says 1 Angstrom per voxel, which writers put when they do not know: taken as unknown")
        return UNKNOWN
    return (sizes[0], sizes[1], sizes[2])

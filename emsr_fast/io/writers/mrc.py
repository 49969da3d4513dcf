"""Writes MRC: MRC2014 with the voxel size in its cell; an MRC input's extended header is kept."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE, get_ext_header_dtype

from emsr_fast.io.formats import stored_dtype
from emsr_fast.io.readers.parts.mrc_header import read_header
from emsr_fast.io.readers.parts.packed import opened
from emsr_fast.io.volume import TargetSpec, TargetVolume
from emsr_fast.io.writers.raw import RawTarget, write_all
from emsr_fast.io.writers.tiff import flattened

_MODES = {"int8": 0, "int16": 1, "float32": 2, "uint16": 6}
_LABELS, _LABEL_BYTES = 10, 80
_FIRST = ("failed_slices", "absent_chunks", "bounded_pixels")
# two numbers that tell how SerialEM's and Agard's extended headers are divided
_COUNTS_AT, _COUNTED = 128, (b"SERI", b"AGAR")


def create_target(path: Path, spec: TargetSpec, *, overwrite: bool) -> TargetVolume:
    """Return a new MRC file of its full size under a temporary name beside ``path``."""
    return MrcTarget(path, spec, overwrite=overwrite)


class MrcTarget(RawTarget):
    """An MRC volume, little-endian; uint8 is stored as uint16, since the standard has no bytes without a sign."""

    def __init__(self, path: Path, spec: TargetSpec, *, overwrite: bool) -> None:
        self._statistics = _Statistics(math.prod(spec.shape))
        self._kept = _kept_of(spec)
        self._extended = _extended_header(spec, self._kept) if self._kept else b""
        stored = np.dtype(stored_dtype(path, spec.dtype.name)).newbyteorder("<")
        super().__init__(path, spec, stored, overwrite=overwrite)

    def write(self, z: int, rows: slice, cols: slice, block: np.ndarray) -> None:
        """Write ``block``, (rows, cols), into slice ``z``."""
        super().write(z, rows, cols, block)
        self._statistics.add(block)

    def _file_bytes(self) -> int:
        return HEADER_DTYPE.itemsize + len(self._extended) + math.prod(self.spec.shape) * self._stored.itemsize

    def _lay_out(self, path: Path) -> int:
        self._header: Any = _header(self.spec, self._stored, self._kept, self._extended)
        with path.open("wb") as file:
            file.write(self._header.tobytes() + self._extended)
            file.truncate(self._file_bytes())
        return HEADER_DTYPE.itemsize + len(self._extended)

    def _finish(self, descriptor: int) -> None:
        self._statistics.enter(self._header)
        write_all(descriptor, memoryview(self._header.tobytes()), 0)


class _Statistics:
    """Minimum, maximum, mean and deviation of a volume that comes in blocks; viewers scale their display by them."""

    def __init__(self, voxels: int) -> None:
        self._missing = self._voxels = voxels
        self._low, self._high, self._sum, self._squares = math.inf, -math.inf, 0.0, 0.0
        self._lock = threading.Lock()

    def add(self, block: np.ndarray) -> None:
        low, high = float(block.min()), float(block.max())
        total, squares = float(block.sum(dtype=np.float64)), float(np.square(block, dtype=np.float64).sum())
        with self._lock:
            self._low, self._high = min(self._low, low), max(self._high, high)
            self._sum, self._squares = self._sum + total, self._squares + squares
            self._missing -= block.size

    def enter(self, header: Any) -> None:
        """Write the values into ``header``, unless some voxels were not seen or were written twice."""
        if self._missing == 0:
            mean = self._sum / self._voxels
            header["dmin"], header["dmax"], header["dmean"] = self._low, self._high, mean
            header["rms"] = math.sqrt(max(0.0, self._squares / self._voxels - mean * mean))


@dataclass(frozen=True)
class _Kept:
    """The extended header of the input, and the fields that describe its format."""

    kind: bytes
    order: str
    counts: bytes
    sections: int
    content: bytes


def _kept_of(spec: TargetSpec) -> _Kept | None:
    place = spec.carried.get("mrc_header_of")
    if place is None:
        return None
    head = read_header(Path(place))
    raw, order = head.raw, head.order
    header = np.frombuffer(raw, HEADER_DTYPE.newbyteorder(order))[0]
    with opened(Path(place)) as file:
        file.read(HEADER_DTYPE.itemsize)
        content = file.read(head.numbers.extended)
    return _Kept(bytes(header["exttyp"]), order, raw[_COUNTS_AT : _COUNTS_AT + 4], int(header["nz"]), content)


def _header(spec: TargetSpec, stored: np.dtype, kept: _Kept | None, extended: bytes) -> Any:
    header = np.zeros((), HEADER_DTYPE.newbyteorder("<"))
    depth, height, width = spec.shape
    header["nx"], header["ny"], header["nz"] = header["mx"], header["my"], header["mz"] = width, height, depth
    header["mode"] = _MODES[stored.name]
    for axis, size, count in zip("zyx", spec.voxel_size_nm, spec.shape, strict=True):
        # no cell at all is how the format leaves a size open
        header["cella"][axis] = 0 if size is None else 10 * size * count
    for axis, size, first in zip("zyx", spec.voxel_size_nm, spec.first_centre, strict=True):
        header["origin"][axis] = 0 if size is None else 10 * first
    # the same as whole voxels, which need no size
    header["nzstart"] = spec.first_slice
    header["nystart"], header["nxstart"] = (round(first * spec.scale) for first in spec.first_pixel)
    for angle in ("alpha", "beta", "gamma"):
        header["cellb"][angle] = 90
    header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
    header["ispg"], header["map"], header["nversion"] = 1, b"MAP ", 20141
    header["machst"] = (0x44, 0x44, 0, 0)
    # the standard's words for statistics that nobody computed
    header["dmin"], header["dmax"], header["dmean"], header["rms"] = 0, -1, -2, -1
    if kept:
        header["nsymbt"], header["exttyp"] = len(extended), kept.kind
        if kept.kind in _COUNTED:
            counts = np.frombuffer(kept.counts, f"{kept.order}i2").astype("<i2").tobytes()
            free = bytearray(header["extra2"].tobytes())
            free[_COUNTS_AT - 112 : _COUNTS_AT - 112 + len(counts)] = counts
            header["extra2"] = np.void(bytes(free))
    labels = _labels(spec)
    header["nlabl"] = len(labels)
    header["label"][: len(labels)] = labels
    return header


def _labels(spec: TargetSpec) -> list[bytes]:
    """Return the settings as ten lines of text, faults of the data first; the last settings may not fit."""
    found = flattened(spec.provenance)
    found.pop("software", None)
    # what is wrong with the data comes first; whole hashes, the longest and least read, last
    settings = [f"{name}={found[name]}" for name in sorted(found, key=_rank)]
    lines = [str(spec.provenance.get("software", "emsr_fast"))]
    for setting in settings:
        text = setting.encode("ascii", "replace").decode()[:_LABEL_BYTES]
        if len(lines) > 1 and len(lines[-1]) + len(text) + 2 <= _LABEL_BYTES:
            lines[-1] += f"; {text}"
        else:
            lines.append(text)
    return [line.encode("ascii", "replace")[:_LABEL_BYTES] for line in lines[:_LABELS]]


def _rank(setting: str) -> int:
    return 0 if setting.startswith(_FIRST) else 2 if setting.endswith("sha256") or setting == "run" else 1


def _extended_header(spec: TargetSpec, kept: _Kept) -> bytes:
    """Return the input's extended header; if its records are known, only those of the slices written."""
    whole, dtype = kept.content, get_ext_header_dtype(kept.kind, kept.order)
    if dtype is None or len(whole) < dtype.itemsize * kept.sections:
        return whole
    records = np.frombuffer(whole, dtype, kept.sections)
    if (records["Metadata size"] != dtype.itemsize).any():
        return whole  # not what its name says: better kept than guessed at
    records = records[spec.first_slice : spec.first_slice + spec.shape[0]].copy()
    _, y, x = spec.voxel_size_nm
    for name, size in (("Pixel size X", x), ("Pixel size Y", y)):
        records[name] = records[name] / spec.scale if size is None else size * 1e-9  # in metres
    return records.astype(dtype.newbyteorder("<"), copy=False).tobytes()

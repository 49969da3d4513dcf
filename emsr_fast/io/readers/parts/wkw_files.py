"""The cubes of a WEBKNOSSOS layer in WKW files: an array read by wkw, whose files are looked at before."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np

from emsr_fast.errors import VolumeError
from emsr_fast.io.readers.parts.extra import needed, reading
from emsr_fast.io.readers.parts.files import DamagedError, check_inside, check_regular
from emsr_fast.io.readers.parts.missing_chunks import Stored

_HEADER_BYTES, _ALIKE = 16, 8  # of a header, and how much of it all files of a layer share
_PLAIN, _OFFSET_AT = 1, 8
_BLOCKS = (_PLAIN, 2, 3)  # as they are, and two settings of LZ4
_MOST_BLOCK, _MOST_FILE = 8, 7  # log2 of voxels along a block and of blocks along a file
_AXES = "zyx"
_CUBE = re.compile(r"z(\d{1,9})/y(\d{1,9})/x(\d{1,9})\.wkw", re.ASCII)


class WkwArray:
    """An array (channels, x, y, z) in cubes; the library reads a cube that is not there as 0."""

    def __init__(self, folder: Path, path: Path, shape: tuple[int, int, int]) -> None:
        """Open ``folder`` of the volume ``path``, with voxels of (x, y, z) below ``shape``.

        Raises:
            VolumeError: wkw is not installed, or the folder has no header that can be true.
        """
        with needed("wkw", path):
            import wkw
        self._folder, self._path = folder, path
        self._seen: set[tuple[int, ...]] = set()
        self._lock = threading.Lock()  # the library says nothing of threads
        header = folder / "header.wkw"
        check_inside(path, header, path)
        if not header.exists():
            raise VolumeError(f"{path} has no {header}, which its cubes need; copy it again")
        check_regular(header, path)
        self._header = self._read_header(header)
        with reading(folder, "WKW"):
            self._file = wkw.Dataset.open(str(folder))
            self.dtype = np.dtype(self._file.header.voxel_type)
            self.shape = (int(self._file.header.num_channels), *shape)
        sides = self._header[4]
        self.block = 1 << (sides & 15)
        self._cube = self.block << (sides >> 4)

    def stored(self, first: tuple[int, int, int]) -> Stored:
        """Return how many files there are of those with voxels from ``first``, (x, y, z), on."""
        spans = self._spans([range(start, stop) for start, stop in zip(first, self.shape[1:], strict=True)])
        # the box may claim any number of them: those that are there are counted
        names = (_CUBE.fullmatch(str(file.relative_to(self._folder))) for file in self._folder.glob("z*/y*/x*.wkw"))
        cubes = (tuple(map(int, name.groups()[::-1])) for name in names if name)
        found = sum(all(number in span for number, span in zip(cube, spans, strict=True)) for cube in cubes)
        total = prod(map(len, spans))
        return Stored(found, total, total)

    def __getitem__(self, where: tuple[slice | int, ...]) -> np.ndarray:
        """Return the part ``where``: a number or a slice of step 1 for each axis."""
        spans = [
            range(one, one + 1) if isinstance(one, int) else range(*one.indices(side))
            for one, side in zip(where, self.shape, strict=True)
        ]
        with self._lock:
            for cube in self._cubes(spans[1:]):
                self._check(cube)
            part: np.ndarray = self._file.read([one.start for one in spans[1:]], [len(one) for one in spans[1:]])
        part = part[spans[0].start : spans[0].stop]
        return part[tuple(0 if isinstance(one, int) else slice(None) for one in where)]

    def close(self) -> None:
        """Close the files."""
        self._file.close()

    def _cubes(self, spans: list[range]) -> Iterator[tuple[int, ...]]:
        yield from itertools.product(*self._spans(spans))

    def _spans(self, spans: list[range]) -> list[range]:
        return [range(one.start // self._cube, (one.stop - 1) // self._cube + 1) for one in spans]

    def _file_of(self, cube: tuple[int, ...]) -> Path:
        names = [f"{axis}{number}" for axis, number in zip(_AXES, cube[::-1], strict=True)]
        return self._folder.joinpath(*names).with_suffix(".wkw")

    def _check(self, cube: tuple[int, ...]) -> None:
        """Raise an error if a file differs from the layer's header: the library would end the process."""
        if cube in self._seen:
            return
        file = self._file_of(cube)
        check_inside(self._path, file, self._path)
        if file.exists():
            check_regular(file, self._path)
            if self._read_header(file)[:_ALIKE] != self._header[:_ALIKE]:
                raise DamagedError(f"{file} has another header than its layer; copy it again")
            if self._header[5] != _PLAIN:
                self._check_ends(file)
        self._seen.add(cube)

    def _check_ends(self, file: Path) -> None:
        """Raise an error unless the list of where packed blocks end rises within the file, by what a block can take."""
        count = (self._cube // self.block) ** 3
        most = self.block**3 * self.shape[0] * self.dtype.itemsize
        most += most // 255 + 16  # what LZ4 makes of a block at most
        with file.open("rb") as stream:
            whole = stream.seek(0, 2)
            stream.seek(_OFFSET_AT)
            content = stream.read(8 * (count + 1))
        ends = np.frombuffer(content[: len(content) // 8 * 8], "<u8")
        first = _HEADER_BYTES + 8 * count
        sizes = np.diff(ends.astype(np.float64))
        if len(ends) != count + 1 or ends[0] != first or ends[-1] > whole or (sizes < 0).any() or (sizes > most).any():
            raise DamagedError(
                f"{file} is damaged: its list of {count} blocks does not fit its {whole} bytes; copy it again"
            )

    def _read_header(self, file: Path) -> bytes:
        with file.open("rb") as stream:
            header = stream.read(_HEADER_BYTES)
        if len(header) < _HEADER_BYTES or header[:3] != b"WKW" or header[5] not in _BLOCKS:
            raise DamagedError(f"{file} is not a WKW file, or is damaged; copy it again")
        if header[4] & 15 > _MOST_BLOCK or header[4] >> 4 > _MOST_FILE:
            raise DamagedError(f"{file} states cubes of {1 << (header[4] & 15)} x 2^{header[4] >> 4}; copy it again")
        return header

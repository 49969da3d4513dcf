"""Volumes for training: few files are open at a time, and decoded slices are kept as memory allows."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path

import numpy as np

from emsr_fast.io.intensity import Normalisation, check_grey_values, measure, parse_range
from emsr_fast.io.registry import ChannelOf
from emsr_fast.io.volume import SourceVolume

_OPEN_FILES = 32
_KEPT_BYTES = 2**30  # of decoded slices, in each process

Place = tuple[Path, int | None, bool]  # a volume, which of its channels, and whether with its data bar


class _Shelf:
    """The open files and decoded slices of this process; a forked worker starts with none of its parent's."""

    def __init__(self) -> None:
        self._owner = -1

    def _own(self) -> None:
        # a file opened before a fork shares its position with the parent: both would read wrong bytes
        if self._owner != os.getpid():
            self._owner = os.getpid()
            self._files: OrderedDict[Place, SourceVolume] = OrderedDict()
            self._slices: OrderedDict[tuple[Place, int], np.ndarray] = OrderedDict()
            self._bytes = 0

    def file(self, place: Place) -> SourceVolume:
        self._own()
        if place not in self._files:
            path, channel, keep_data_bar = place
            self._files[place] = ChannelOf(channel, keep_data_bar).open(path)
            while len(self._files) > _OPEN_FILES:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(place)
        return self._files[place]

    def slice(self, place: Place, z: int, grey: Normalisation) -> np.ndarray:
        self._own()
        if (place, z) not in self._slices:
            source = self.file(place)
            _, height, width = source.shape
            image = source.read(z, slice(0, height), slice(0, width))
            check_grey_values(image, z, source, grey)
            self._slices[place, z] = image
            self._bytes += image.nbytes
            while self._bytes > _KEPT_BYTES and len(self._slices) > 1:
                self._bytes -= self._slices.popitem(last=False)[1].nbytes
        self._slices.move_to_end((place, z))
        return self._slices[place, z]


_shelf = _Shelf()


class TrainingVolume:
    """A volume by its path; intensities normalised, float32."""

    def __init__(
        self,
        path: Path,
        *,
        normalisation: Normalisation | None = None,
        intensity_range: str | None = None,
        channel: int | None = None,
        keep_data_bar: bool = False,
    ) -> None:
        """Open ``path``, of several channels the one given, with its data bar if that is asked for.

        Its normalisation is given, or from ``intensity_range`` ("LO:HI" or "dtype"), or measured.
        """
        self.path, self._place = path, (path, channel, keep_data_bar)
        source = _shelf.file(self._place)
        self.shape, self.dtype, self.damaged = source.shape, source.dtype, source.info.damaged
        self.voxel_size_nm = source.info.voxel_size_nm
        # slices with NaN may be among those that the settings leave out: they are refused where they are used
        given = parse_range(intensity_range, self.dtype) if intensity_range else None
        self.normalisation = normalisation or given or measure(source)

    def whole(self, z: int) -> np.ndarray:
        """Return slice ``z``, (Y, X) in the file's dtype.

        Raises:
            VolumeError: it cannot be read, or has NaN or no-data pixels.
        """
        return _shelf.slice(self._place, z, self.normalisation)

    def crop(self, z: int, rows: slice, cols: slice) -> np.ndarray:
        """Return part of slice ``z``, normalised."""
        return self.normalisation.to_model(self.whole(z)[rows, cols])

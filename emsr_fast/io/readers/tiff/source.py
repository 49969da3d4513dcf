"""TIFF in: classic and BigTIFF, OME, ImageJ and plain stacks, as one grey stack each."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tifffile

from emsr_fast.errors import EmsrError, UsageError, VolumeError
from emsr_fast.io.axes import chosen
from emsr_fast.io.readers.array import check_chunk
from emsr_fast.io.readers.files import DamagedError
from emsr_fast.io.readers.tiff.beside import check_ome
from emsr_fast.io.readers.tiff.pages import Page, PageReader, keyframe_of
from emsr_fast.io.readers.tiff.voxels import read_position, read_voxel_size
from emsr_fast.io.volume import SourceVolume, VolumeInfo, check_pixels

_WHITE_IS_ZERO, _BLACK_IS_ZERO = 0, 1
_COLOURS = {2: "RGB", 3: "a colour palette", 5: "CMYK", 6: "YCbCr colour", 8: "L*a*b* colour"}
# axes that are a stack's depth whatever the writer called them; T because many writers call z time
_STACK_AXES = "ZQI"
_READ_AS_Z = {"T": "time", "C": "channel"}
# so many are colours or stains; more are slices, which ImageJ and OME writers call channels unless told otherwise
_MOST_CHANNELS = 8
# tifffile only warns where it would hand out zeros for pixels that are not there
_LOSS = re.compile(r"zeroed|missing|corrupted|incomplete|out of range|invalid (offset|page)|failed to read", re.I)
# a vendor's own tag that does not parse says nothing about the pixels
_PRIVATE_TAG = re.compile(r"TiffTag (3276[89]|327[7-9]\d|32[89]\d\d|3[3-9]\d{3}|[4-6]\d{4}) ")


def open_source(path: Path, key: str | None, axes: str | None) -> SourceVolume:
    """Return the TIFF stack at ``path``, or its series number ``key``, opened for reading."""
    return TiffSource(path, key, axes)


class TiffSource(SourceVolume):
    """A TIFF file as one grey stack; pages are found anywhere in the file."""

    def __init__(self, path: Path, key: str | None = None, axes: str | None = None) -> None:
        self._path, self._key, self._asked = path, key, axes
        with _tifffile_errors(path) as notes:
            # sets of Micro-Manager are found by names in files of its own: each file is read by itself
            self._file = tifffile.TiffFile(path, is_mmstack=False, is_ndtiff=False)
            try:
                self._open(path, notes)
            except BaseException:
                self._file.close()
                raise

    def _open(self, path: Path, notes: list[str]) -> None:
        check_ome(self._file, path)
        # the chain of pages is followed to its end, so that a cut shows here and not hours later
        if len(self._file.pages) == 0:
            raise DamagedError(f"{path} is truncated: it has a TIFF header and no complete page; copy it again")
        self._pages, axes = self._stack(path, notes)
        first = keyframe_of(self._pages[0])
        _check_grey(first, path)
        pixels = np.dtype(first.dtype or "V1").newbyteorder("=")
        height, width = (int(side) for side in first.shape[-2:])
        shape = (len(self._pages) * self._slices_in_page, height, width)
        notes.extend(check_pixels(shape, pixels, path))
        self._check_extent(path)
        # pixels as they are in one piece, as we write them, are read by their place, however many
        if not (first.is_final and len(first.dataoffsets) == 1):
            check_chunk(tuple(int(side) for side in first.chunks), pixels, path)
        self._reader = PageReader(first, (height, width), pixels)
        self._inverted = int(first.photometric) == _WHITE_IS_ZERO
        if self._inverted:
            if pixels.kind != "u" or first.bitspersample != 8 * pixels.itemsize:
                raise VolumeError(f"{path} stores white as zero in {pixels.name}; save it with black as zero first")
            notes.append("stored with white as zero: inverted while reading, so that black is zero")
        voxel_size_nm, stated, voxel_notes = read_voxel_size(self._file, self._series)
        self.info = VolumeInfo(
            path=path,
            format=self._format_name(),
            shape=shape,
            dtype=pixels,
            axes=axes,
            chunks=(1, int(first.chunks[0]), int(first.chunks[1])),
            key=self._key,
            voxel_size_nm=voxel_size_nm,
            voxel_size_from=stated,
            position_nm=read_position(self._file, self._series),
            notes=(*notes, *voxel_notes),
        )

    def _stack(self, path: Path, notes: list[str]) -> tuple[list[Page], str]:
        """Return the pages in z order and the axes as the file, or the user, names them."""
        series, self._series = self._file.series, 0
        if self._file.is_micromanager and series[0].kind != "ome":
            notes.append("made by Micro-Manager: read are the slices of this file, not those of others of its set")
        # a writer that appended its slices one by one left one series each
        kinds = {(one.shape, one.dtype) for one in series}
        if self._key is not None or len(kinds) > 1 or (len(series) > 1 and len(series[0].shape) != 2):
            listed = {str(n): f"{' x '.join(map(str, one.shape))} {one.dtype}" for n, one in enumerate(series)}
            self._key = chosen(listed, self._key, path)
            self._series = int(self._key)
            series = [series[self._series]]
        if 0 in series[0].shape:
            raise VolumeError(f"{path} has no pixels: its shape is {series[0].shape}; check how it was written")
        axes = "I" + series[0].axes if len(series) > 1 else series[0].axes
        if self._asked is not None:
            axes = _named(axes, self._asked, series[0].shape, path)
        _check_axes(axes, series[0], path, notes)
        # a big ImageJ stack has one page entry, its slices follow each other behind it
        self._slices_in_page = series[0].shape[0] if series[0].is_truncated and len(axes) == 3 else 1
        pages: list[Page] = []
        for page in (page for one in series for page in one.pages):
            if page is None:
                raise DamagedError(f"{path} is incomplete: slice {len(pages)} is missing; copy it again")
            pages.append(page)
        if self._slices_in_page == 1 and len(axes) == 3 and len(series) == 1 and len(pages) != series[0].shape[0]:
            raise VolumeError(
                f"{path} has {len(pages)} pages for {series[0].shape[0]} slices; save it with one page per slice"
            )
        return pages, axes

    def _check_extent(self, path: Path) -> None:
        """Refuse pages whose pixels lie outside their file, which is what truncation looks like."""
        for z, page in enumerate(self._pages):
            keyframe, size = keyframe_of(page), page.parent.filehandle.size
            offsets, counts = page.dataoffsets, page.databytecounts
            if len(offsets) < math.prod(page.chunked) or len(offsets) != len(counts) or 0 in counts:
                raise DamagedError(f"{path} is incomplete: slice {z} lacks some of its strips or tiles; copy it again")
            end = max(offset + count for offset, count in zip(offsets, counts, strict=True))
            stored = sum(counts)
            if self._slices_in_page > 1:
                if self._file.series[0].dataoffset is None:
                    raise VolumeError(
                        f"{path} has one page for {self._slices_in_page} slices; save it again as OME-TIFF"
                    )
                stored = self._slices_in_page * page.nbytes
                end = offsets[0] + stored
            if end > size:
                raise DamagedError(
                    f"{path} is truncated: slice {z} ends at byte {end}, the file has {size}; copy or export it again"
                )
            if keyframe.compression == 1 and keyframe.bitspersample % 8 == 0 and stored < page.nbytes:
                raise DamagedError(
                    f"{path} is corrupt: slice {z} has {stored} bytes where {page.nbytes} are needed; export it again"
                )

    def _format_name(self) -> str:
        flavour = "OME-" if self._file.is_ome else "ImageJ " if self._file.is_imagej else ""
        return f"{flavour}{'BigTIFF' if self._file.is_bigtiff else 'TIFF'}"

    def read(self, z: int, rows: slice, cols: slice) -> np.ndarray:
        """Return pixels of slice ``z``, (rows, cols)."""
        _, height, width = self.shape
        rows, cols = slice(*rows.indices(height)), slice(*cols.indices(width))
        page = self._pages[z // self._slices_in_page]
        with _tifffile_errors(self._path, f"slice {z}"):
            if self._slices_in_page > 1:
                pixels = self._reader.read_raw(page, page.dataoffsets[0] + z * page.nbytes, rows, cols)
            else:
                pixels = self._reader.read(z, page, rows, cols)
        return np.iinfo(pixels.dtype).max - pixels if self._inverted else pixels

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _named(axes: str, asked: str, shape: tuple[int, ...], path: Path) -> str:
    """Return what ``axes`` says; of a TIFF it can only say what its pages are, not what lies in a page."""
    shape = shape if len(axes) == len(shape) else (-1, *shape)
    if len(asked) != len(axes) or not asked.endswith("YX") or not axes.endswith("YX"):
        sized = ", ".join(f"{name}={size}" for name, size in zip(axes, shape, strict=True))
        raise UsageError(f"axes {asked!r} do not fit {path}, which has {sized}; name as many, the last two Y and X")
    return asked


def _check_axes(axes: str, series: tifffile.TiffPageSeries, path: Path, notes: list[str]) -> None:
    names = axes[-len(series.shape) :]
    extra = [(name, size) for name, size in zip(names, series.shape, strict=True) if name not in "YX"]
    if "S" in axes:
        raise VolumeError(
            f"{path} has {series.sizes.get('sample', 'several')} samples per pixel (RGB, or grey with alpha), "
            "expected one: convert it to grey; if these are slices of a stack, save it with photometric='minisblack'"
        )
    if "C" in axes and not (len(extra) == 1 and dict(extra)["C"] > _MOST_CHANNELS):
        raise VolumeError(
            f"{path} has {dict(extra)['C']} channels (axes {axes}); save the one you want by itself, "
            "or if these are slices, save it with axes ZYX"
        )
    if len(extra) > 1 or not axes.endswith("YX"):
        named = ", ".join(f"{name}={size}" for name, size in zip(names, series.shape, strict=True))
        raise VolumeError(f"{path} has axes {named}; expected one stack of slices: Z, Y, X")
    if axes[0] in _READ_AS_Z:
        notes.append(f"the {_READ_AS_Z[axes[0]]} axis is read as z")
    elif len(axes) == 3 and axes[0] not in _STACK_AXES:
        notes.append(f"axis {axes[0]} is read as z")


def _check_grey(page: tifffile.TiffPage, path: Path) -> None:
    photometric = int(page.photometric)
    if page.samplesperpixel != 1 or photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO):
        what = _COLOURS.get(photometric, f"photometric {photometric}")
        raise VolumeError(f"{path} holds {what}, {page.samplesperpixel} samples per pixel; convert it to grey first")
    if len(page.shape) != 2 and min(page.shape) > 0:
        raise VolumeError(f"{path} stores {page.shape} voxels in one page; save it with one page per slice")


@contextmanager
def _tifffile_errors(path: Path, part: str = "") -> Iterator[list[str]]:
    """Turn tifffile's exceptions, and its log lines about lost pixels, into VolumeError; yield the harmless lines."""
    where = f"{part} of {path}" if part else str(path)
    notes: list[str] = []
    grave: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = " ".join(re.sub(r"<tifffile\.\w+ [^>]*> ?", "", record.getMessage()).split())
            lost = record.levelno >= logging.ERROR and not _PRIVATE_TAG.search(text)
            (grave if lost or _LOSS.search(text) else notes).append(text)

    log, listener = logging.getLogger("tifffile"), Listener(logging.WARNING)
    propagate, log.propagate = log.propagate, False
    log.addHandler(listener)
    try:
        yield notes
    except (EmsrError, MemoryError, NotImplementedError) as error:
        if isinstance(error, NotImplementedError):
            raise VolumeError(f"{where} uses a TIFF feature that cannot be read: {error}; save it again") from error
        if grave and isinstance(error, VolumeError):
            raise type(error)(f"{error} (the reader says: {grave[0]})") from error
        raise
    except Exception as error:
        reason = grave[0] if grave else f"{error}" or type(error).__name__
        raise DamagedError(f"{where} cannot be read as TIFF: {reason}; copy or export it again") from error
    finally:
        log.removeHandler(listener)
        log.propagate = propagate
    if grave:
        raise DamagedError(f"{where} is truncated or damaged: {grave[0]}; copy or export it again")

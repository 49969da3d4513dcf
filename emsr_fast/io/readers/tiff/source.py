"""Reads TIFF: classic and BigTIFF, OME, ImageJ and plain stacks, each as one grey stack."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import tifffile

from emsr_fast.errors import EmsrError, VolumeError
from emsr_fast.io.axes import Asked, chosen
from emsr_fast.io.readers.parts.array import check_chunk
from emsr_fast.io.readers.parts.files import DamagedError
from emsr_fast.io.readers.parts.missing_chunks import Stored
from emsr_fast.io.readers.tiff.beside import check_count, check_ome
from emsr_fast.io.readers.tiff.greys import check_one_palette, greys_of, samples_of
from emsr_fast.io.readers.tiff.ome_set import missing_of, others_of, why_no_ome
from emsr_fast.io.readers.tiff.pages import Page, PageReader, keyframe_of
from emsr_fast.io.readers.tiff.stack import slices_of
from emsr_fast.io.readers.tiff.vendor_texts import Stated
from emsr_fast.io.readers.tiff.vendors import read_vendors, vendor_page
from emsr_fast.io.readers.tiff.voxels import read_position, read_voxel_size
from emsr_fast.io.volume import SourceVolume, VolumeInfo, as_pixels, check_pixels, pixel_dtype
from emsr_fast.wording import counted, shortened

_NAMED = 3  # missing files in a message
_LONGEST = 300  # characters of what tifffile says
_LOOKED_AT = 2**22  # pixels whose channels are compared before a run begins
# tifffile only warns where it would hand out zeros for pixels that are not there
_LOSS = re.compile(r"zeroed|missing|corrupted|incomplete|out of range|invalid (offset|page)|failed to read", re.I)
# what is looked at here, too: metadata that do not parse, and files of a set that are not there
_SEEN_TO = re.compile(r"OME series raised ParseError|OME series failed to read ")
# a vendor's own tag that does not parse says nothing about the pixels
_PRIVATE_TAG = re.compile(r"TiffTag (3276[89]|327[7-9]\d|32[89]\d\d|3[3-9]\d{3}|[4-6]\d{4}) ")


def open_source(path: Path, key: str | None, asked: Asked) -> SourceVolume:
    """Return the TIFF stack at ``path``, or its series number ``key``, opened for reading."""
    return TiffSource(path, key, asked)


class TiffSource(SourceVolume):
    """A TIFF file, or a set of OME-TIFFs, as one grey stack; pages are found anywhere in the file."""

    def __init__(self, path: Path, key: str | None = None, asked: Asked = Asked(), *, alone: bool = False) -> None:
        """Open the stack at ``path``.

        Args:
            key: the series' number.
            asked: what the user says of the axes.
            alone: whether to leave out the other files of a set.
        """
        self._path, self._key, self._asked = path, key, asked
        with _tifffile_errors(path) as notes:
            # sets of Micro-Manager are found by names in files of its own: each file is read by itself
            opened = partial(tifffile.TiffFile, path, is_mmstack=False, is_ndtiff=False)
            self._file = described = opened()
            try:
                check_ome(described, path)
                self._missing, plain = self._set(alone, notes)
                if plain:
                    self._file = opened(is_ome=False)
                self._open(path, notes, described)
            except BaseException:
                self._file.close()
                raise
            finally:
                if described is not self._file:
                    described.close()

    def _set(self, alone: bool, notes: list[str]) -> tuple[list[str], bool]:
        """Return the files of a set that are not there, and whether to read the file's own pages, without OME."""
        others = others_of(self._file)
        missing = missing_of(others, self._path.parent)
        if others and (alone or len(missing) == len(others)):
            if not alone:
                notes.append(f"its set has {counted(len(others), 'other file')}, none of them here: read by itself")
            return [], True
        why = why_no_ome(self._file)
        if why:
            notes.append(why)
        return missing, why is not None

    def _open(self, path: Path, notes: list[str], described: tifffile.TiffFile) -> None:
        # the chain of pages is followed to its end, so that a cut shows here and not hours later
        if len(self._file.pages) == 0:
            raise DamagedError(f"{path} is truncated: it has a TIFF header and no complete page; copy it again")
        self._pages, axes = self._stack(path, notes)
        first = keyframe_of(next(page for page in self._pages if page is not None))
        greys = self._greys = greys_of(first, path)
        if greys.greys is not None:
            check_one_palette(self._pages, path)
        pixels = np.dtype(first.dtype or "V1").newbyteorder("=")
        stored, width = int(first.imagelength), int(first.imagewidth)
        stating = vendor_page(first, described.pages.first)
        vendor = read_vendors(stating, path, notes)
        # a picture of another size, such as a thumbnail, has another pixel
        if vendor and width != int(stating.imagewidth):
            vendor = Stated(vendor.instrument)
        height = vendor.rows_of(stored, width, self._asked.keep_data_bar, notes) if vendor else stored
        shape = (len(self._numbers), height, width)
        notes.extend(check_pixels(shape, pixels, path))
        sparse, told, absent = self._check_extent(path)
        # pixels as they are in one piece, as we write them, are read by their place, however many
        if not (first.is_final and len(first.dataoffsets) == 1):
            check_chunk(tuple(int(side) for side in first.chunks), pixels, path)
        self._reader = PageReader(first, (stored, width), pixels, sparse, greys.samples)
        notes.extend(greys.notes)
        damaged = {z: self._lost(z) for z, page in enumerate(self._pages) if page is None}
        if damaged:
            notes.append(f"{len(damaged)} of {shape[0]} slices cannot be read: {next(iter(damaged.values()))}")
        voxel_size_nm, stated, voxel_notes = read_voxel_size(described, first, self._series, vendor)
        self.info = VolumeInfo(
            path=path,
            format=_format_name(described),
            shape=shape,
            dtype=pixel_dtype(greys.dtype),
            axes=axes,
            chunks=(1, int(first.chunks[0]), int(first.chunks[1])),
            key=self._key,
            voxel_size_nm=voxel_size_nm,
            voxel_size_from=stated,
            position_nm=read_position(described, self._series),
            notes=(*notes, *voxel_notes, *told),
            absent=absent,
            damaged=damaged,
            instrument=vendor.instrument if vendor else None,
        )
        self._alpha: int | float | None = None
        if greys.samples > 1:
            self._look_at_colours()

    def _look_at_colours(self) -> None:
        """Raise VolumeError if the first slice begins with colours; the others are looked at when they are read."""
        z = next(number for number, page in enumerate(self._pages) if page is not None)
        _, height, width = self.shape
        block = self._stored(z, slice(0, min(height, max(1, _LOOKED_AT // width))), slice(0, width))
        self._greys.of(block, f"slice {z} of {self._path}")
        self._alpha = block[0, 0, -1].item() if self._greys.samples in (2, 4) else None

    def _stack(self, path: Path, notes: list[str]) -> tuple[list[Page | None], str]:
        """Return the page of each slice (None for a lost one), and the axes as the file or the user names them."""
        series, self._series = self._file.series, 0
        if self._file.is_micromanager and series[0].kind != "ome":
            notes.append("made by Micro-Manager: read are the slices of this file, not those of others of its set")
        # small copies of an image, for viewers; those of half or a quarter of its size are levels of it to tifffile
        images = [one.levels if one.kind == "generic" else [one] for one in series]
        small = [level > 0 or one.keyframe.is_reduced for levels in images for level, one in enumerate(levels)]
        series = [one for levels in images for one in levels]
        whole = [number for number, copy in enumerate(small) if not copy]
        if self._key is None and 0 < len(whole) < len(series):
            copies = counted(len(series) - len(whole), "smaller copy", "smaller copies")
            notes.append(f"{copies} of the image left out: `key` chooses them")
            series, self._series = [series[number] for number in whole], whole[0]
        # a writer that appended its slices one by one left one series each
        kinds = {(one.shape, one.dtype) for one in series}
        if self._key is not None or len(kinds) > 1 or (len(series) > 1 and len(series[0].shape) != 2):
            listed = {str(n): f"{' x '.join(map(str, one.shape))} {one.dtype}" for n, one in enumerate(series)}
            self._key = chosen(listed, self._key, path)
            self._series = int(self._key)
            series = [series[self._series]]
        first = series[0]
        if 0 in first.shape:
            raise VolumeError(f"{path} has no pixels: its shape is {first.shape}; check how it was written")
        appended = len(series) > 1
        axes, shape = ("I" + first.axes, (len(series), *first.shape)) if appended else (first.axes, first.shape)
        if "S" in axes and samples_of(first.keyframe):
            shape = tuple(side for name, side in zip(axes, shape, strict=True) if name != "S")
            axes = axes.replace("S", "")
        stored = math.prod(shape) // (int(first.keyframe.imagelength) * int(first.keyframe.imagewidth))
        # a big ImageJ stack has one page entry, its slices follow each other behind it
        self._in_one_page = stored if first.is_truncated and not appended and stored > 1 else 0
        if not first.is_multifile:  # ``check_ome`` has looked at those
            check_count(stored, first.keyframe, self._file.filehandle.size, path)
        axes, self._numbers = slices_of(axes, shape, self._asked, path, notes)
        pages: list[Page | None] = [page for one in series for page in one.pages]
        if self._in_one_page:
            return [pages[0]] * len(self._numbers), axes
        if len(pages) != stored:
            raise VolumeError(
                f"{path} has {counted(len(pages), 'page')} for {counted(stored, 'slice')}; save it "
                "with one page per slice"
            )
        pages = [pages[number] for number in self._numbers]
        if None in pages and not self._missing:
            raise DamagedError(f"{path} is incomplete: slice {pages.index(None)} is missing; copy it again")
        return pages, axes

    def _lost(self, z: int) -> str:
        named = ", ".join(shortened(name) for name in self._missing[:_NAMED]) + (
            " ..." if len(self._missing) > _NAMED else ""
        )
        return (
            f"slice {z} of {self._path} is in a file of its set that is not here; not here: {named}; copy the whole set"
        )

    def _check_extent(self, path: Path) -> tuple[list[int], tuple[str, ...], dict[str, int]]:
        """Raise VolumeError if pixels of a page lie outside its file, as in a truncated one.

        Return the slices with strips or tiles that are not stored, with notes and numbers about them.
        """
        sparse, found, total, fill = [], 0, 0, 0.0
        # those of one page entry are checked as one
        for z, page in enumerate(self._pages[:1] if self._in_one_page else self._pages):
            if page is None:
                continue
            keyframe, size = keyframe_of(page), page.parent.filehandle.size
            offsets, counts = page.dataoffsets, page.databytecounts
            # neither place nor size: left out by its writer, as GDAL does with what is empty
            omitted = sum(offset == count == 0 for offset, count in zip(offsets, counts, strict=False))
            if len(offsets) < math.prod(page.chunked) or len(offsets) != len(counts) or counts.count(0) > omitted:
                raise DamagedError(f"{path} is incomplete: slice {z} lacks some of its strips or tiles; copy it again")
            found, total, fill = found + len(counts) - omitted, total + len(counts), keyframe.nodata
            end = max(offset + count for offset, count in zip(offsets, counts, strict=True))
            stored = sum(counts)
            if omitted:
                sparse.append(z)
            if self._in_one_page:
                if self._file.series[0].dataoffset is None:
                    raise VolumeError(f"{path} has one page for {self._in_one_page} slices; save it again as OME-TIFF")
                stored = self._in_one_page * page.nbytes
                end = offsets[0] + stored
            if end > size:
                raise DamagedError(
                    f"{path} is truncated: slice {z} ends at byte {end}, the file has {size}; copy or export it again"
                )
            whole = keyframe.compression == 1 and keyframe.bitspersample % 8 == 0 and not omitted
            if whole and stored < page.nbytes:
                raise DamagedError(
                    f"{path} is corrupt: slice {z} has {stored} bytes where {page.nbytes} are needed; export it again"
                )
        return (sparse, *Stored(found, total, total).checked(path, fill, "strips or tiles"))

    def read(self, z: int, rows: slice, cols: slice) -> np.ndarray:
        """Return pixels of slice ``z``, (rows, cols)."""
        _, height, width = self.shape
        rows, cols = slice(*rows.indices(height)), slice(*cols.indices(width))
        pixels = self._stored(z, rows, cols)
        return as_pixels(self._greys.of(pixels, f"slice {z} of {self._path}", self._alpha))

    def _stored(self, z: int, rows: slice, cols: slice) -> np.ndarray:
        page = self._pages[z]
        if page is None:
            raise DamagedError(self._lost(z))
        with _tifffile_errors(self._path, f"slice {z}"):
            if self._in_one_page:
                offset = page.dataoffsets[0] + self._numbers[z] * page.nbytes
                return self._reader.read_raw(page, offset, rows, cols)
            return self._reader.read(z, page, rows, cols)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _format_name(file: tifffile.TiffFile) -> str:
    flavour = "OME-" if file.is_ome else "ImageJ " if file.is_imagej else ""
    return f"{flavour}{'BigTIFF' if file.is_bigtiff else 'TIFF'}"


@contextmanager
def _tifffile_errors(path: Path, part: str = "") -> Iterator[list[str]]:
    """Turn tifffile's exceptions, and its log lines about lost pixels, into VolumeError; yield its other log lines."""
    where = f"{part} of {path}" if part else str(path)
    notes: list[str] = []
    grave: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = shortened(" ".join(re.sub(r"<tifffile\.\w+ [^>]*> ?", "", record.getMessage()).split()), _LONGEST)
            if _SEEN_TO.match(text):
                return
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
        reason = grave[0] if grave else shortened(str(error), _LONGEST) or type(error).__name__
        raise DamagedError(f"{where} cannot be read as TIFF: {reason}; copy or export it again") from error
    finally:
        log.removeHandler(listener)
        log.propagate = propagate
    if grave:
        raise DamagedError(f"{where} is truncated or damaged: {grave[0]}; copy or export it again")

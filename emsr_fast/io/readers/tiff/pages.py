"""Parts of TIFF pages: small pages are decoded whole; of large ones only the strips or tiles needed."""

from __future__ import annotations

import math
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import tifffile

from emsr_fast.errors import VolumeError

Page = tifffile.TiffPage | tifffile.TiffFrame
# a page up to this size is decoded at once, which tifffile does on several threads
_WHOLE_BYTES = 2**26
# of decoded pages, strips and tiles, which neighbouring tiles share
_KEPT_BYTES = 2**28
_SEPARATE = 2  # PlanarConfiguration: a plane for each sample


def keyframe_of(page: Page) -> tifffile.TiffPage:
    """Return the page whose tags ``page`` shares; itself, if it has its own."""
    keyframe: tifffile.TiffPage | None = page if isinstance(page, tifffile.TiffPage) else page.keyframe
    if keyframe is None:
        raise VolumeError("a page of the stack has no tags; export the file again")
    return keyframe


class PageReader:
    """Parts of pages of one kind, (Y, X) each, in native byte order."""

    def __init__(
        self,
        keyframe: tifffile.TiffPage,
        shape: tuple[int, int],
        dtype: np.dtype,
        sparse: Collection[int] = (),
        samples: int = 1,
    ) -> None:
        """Take the page whose tags all share.

        Args:
            shape: of a page, (Y, X).
            sparse: slices of which some strips or tiles are not stored: these read as ``keyframe.nodata``.
            samples: of each pixel; parts of a page have them as third axis if there are several.

        Raises:
            VolumeError: the samples of a large page lie in planes.
        """
        self._samples, self._tail = samples, (samples,) if samples > 1 else ()
        self._planes = samples > 1 and int(keyframe.planarconfig) == _SEPARATE
        self._keyframe, self._shape, self._dtype, self._sparse = keyframe, shape, dtype, frozenset(sparse)
        self._stored = dtype.newbyteorder(keyframe.parent.byteorder)
        self._whole = shape[0] * shape[1] * samples * dtype.itemsize <= _WHOLE_BYTES
        if self._planes and (sparse or not self._whole):
            raise VolumeError(
                f"a page of {shape[0]} x {shape[1]} pixels stores its channels one by one; save it as grey"
            )
        self._kept: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._kept_most = _KEPT_BYTES
        self._lock = threading.Lock()

    def limit_memory(self, most: int) -> int:
        """Hold ``most`` bytes of decoded pages or parts, or as little as possible; return how many at the peak."""
        sides = self._shape if self._whole else self._keyframe.chunks[:2]
        part = math.prod(sides) * self._dtype.itemsize
        self._kept_most = min(max(most - 2 * part, part), _KEPT_BYTES)
        return (part if self._whole else self._kept_most) + 2 * part

    def read(self, z: int, page: Page, rows: slice, cols: slice) -> np.ndarray:
        """Return (rows, cols) of ``page``, which is slice ``z``; both slices have ends within it."""
        if self._whole and z not in self._sparse:
            return self._keep((z, -1), partial(self._page, page))[rows, cols]
        stored = z not in self._sparse
        if stored and self._keyframe.is_final and page.is_contiguous and _follow_each_other(page):
            return self.read_raw(page, page.dataoffsets[0], rows, cols)
        high, wide = self._keyframe.chunks[:2]
        image = np.zeros((rows.stop - rows.start, cols.stop - cols.start, *self._tail), self._dtype)
        across = -(-self._shape[1] // wide)
        for down in range(rows.start // high, -(-rows.stop // high)):
            for right in range(cols.start // wide, -(-cols.stop // wide)):
                number = down * across + right
                segment = self._keep((z, number), partial(self._segment, page, number))
                top, left = down * high, right * wide
                y, x = max(rows.start - top, 0), max(cols.start - left, 0)
                part = segment[y : rows.stop - top, x : cols.stop - left]
                y, x = top + y - rows.start, left + x - cols.start
                image[y : y + part.shape[0], x : x + part.shape[1]] = part
        return image

    def read_raw(self, page: Page, offset: int, rows: slice, cols: slice) -> np.ndarray:
        """Return (rows, cols) of uncompressed pixels that begin at byte ``offset`` of the file of ``page``."""
        size, width = self._dtype.itemsize * self._samples, cols.stop - cols.start
        image = np.empty((rows.stop - rows.start, width, *self._tail), self._dtype)
        with _descriptor(page) as descriptor:
            for index, row in enumerate(range(rows.start, rows.stop)):
                line = os.pread(descriptor, width * size, offset + (row * self._shape[1] + cols.start) * size)
                if len(line) < width * size:
                    raise VolumeError(f"row {row} ends at byte {len(line)} of {width * size}: the file became shorter")
                image[index] = np.frombuffer(line, self._stored).reshape(width, *self._tail)
        return image

    def _page(self, page: Page) -> np.ndarray:
        handle = page.parent.filehandle
        closed = handle.closed
        if closed:
            handle.open()
        try:
            pixels: np.ndarray = page.asarray()
        finally:
            if closed:
                handle.close()
        if self._planes:
            pixels = np.moveaxis(pixels.reshape(self._samples, *self._shape), 0, -1)
        return pixels.reshape(*self._shape, *self._tail).astype(self._dtype, copy=False)

    def _segment(self, page: Page, number: int) -> np.ndarray:
        offset, count = page.dataoffsets[number], page.databytecounts[number]
        keyframe = self._keyframe
        if count == 0:
            high, wide = keyframe.chunks[:2]
            return np.full((high, wide, *self._tail), keyframe.nodata, self._dtype)
        with _descriptor(page) as descriptor:
            data = os.pread(descriptor, count, offset)
        decoded = keyframe.decode(data, number, jpegtables=page.jpegtables, jpegheader=keyframe.jpegheader)[0]
        if decoded is None:
            raise VolumeError(f"strip or tile {number} is missing; export the file again")
        pixels: np.ndarray = decoded[0] if self._samples > 1 else decoded[0, :, :, 0]
        return pixels.astype(self._dtype, copy=False)

    def _keep(self, key: tuple[int, int], decode: Callable[[], np.ndarray]) -> np.ndarray:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            pixels = decode()
            self._kept[key] = pixels
            # a whole page serves the tiles of one slice, parts serve tiles side by side
            most = pixels.nbytes if self._whole else self._kept_most
            while len(self._kept) > 1 and sum(kept.nbytes for kept in self._kept.values()) > most:
                self._kept.popitem(last=False)
            return pixels


@contextmanager
def _descriptor(page: Page) -> Iterator[int]:
    """Yield the open file of ``page``: the other files of a set are closed between reads."""
    handle = page.parent.filehandle
    if not handle.closed:
        yield handle.fileno()
    else:
        with open(handle.path, "rb") as file:
            yield file.fileno()


def _follow_each_other(page: Page) -> bool:
    ends = (offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True))
    return all(end == start for end, start in zip(ends, page.dataoffsets[1:], strict=False))

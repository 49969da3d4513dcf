"""A volume resampled in y and x to square pixels of another size, read slice by slice."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from emsr_fast.errors import UsageError
from emsr_fast.io.volume import SourceVolume

_BAND_PIXELS = 2**22  # of the source, about; what is held in float64 at a time
_LARGEST_FACTOR = 1000  # beyond it a size is mistyped, in another unit for instance
_CUBIC = -0.5  # Keys' parameter: exact on parabolas


class ResampledSource(SourceVolume):
    """A source with other pixel sizes in y and x. A pixel's value does not depend on which part is read.

    The outer edges of the first pixels coincide. Let f be the ratio of the sizes: pixel j of the result has its centre
    at ``(j + 1/2) f - 1/2`` of the source, so its size is exact. There are as many pixels as touch the source; the last
    one may reach beyond it.

    Coarser (f > 1): each pixel is the mean of the source over its area. A source pixel that is only partly inside
    counts by that part, with its slope. Area outside the source does not count. So the mean of the image is kept,
    ramps are not displaced, and a whole f is plain binning. Finer (f < 1): Keys' cubic convolution (a = -1/2), edge
    pixels repeated. Integers are clipped and rounded half to even.
    """

    def __init__(self, source: SourceVolume, sizes_nm: tuple[float, float], target_nm: float) -> None:
        """Wrap ``source``.

        Args:
            source: read lazily.
            sizes_nm: its pixel sizes, (y, x).
            target_nm: the pixel size of the result.
        """
        self._source, self._from, self._to = source, sizes_nm, target_nm
        z, *_ = source.info.voxel_size_nm
        depth, *sides = source.shape
        self._factors = [target_nm / size for size in sizes_nm]
        for size, factor in zip(sizes_nm, self._factors, strict=True):
            if not 1 / _LARGEST_FACTOR <= factor <= _LARGEST_FACTOR:
                raise UsageError(
                    f"input pixels of {size:g} nm would be resampled to {target_nm:g} nm, a factor above "
                    f"{_LARGEST_FACTOR}; check the size, which is in nm: `input_voxel=NM`"
                )
        height, width = (_length(side, factor) for side, factor in zip(sides, self._factors, strict=True))
        names = ["area mean" if factor > 1 else "cubic convolution" for factor in self._factors]
        how = names[0] if names[0] == names[1] else f"{names[0]} in y, {names[1]} in x"
        self._filter = how
        note = (
            f"resampled from {sizes_nm[0]:g} x {sizes_nm[1]:g} to {target_nm:g} x {target_nm:g} nm ({how}): "
            f"{sides[0]} x {sides[1]} to {height} x {width} px"
        )
        self.info = replace(
            source.info,
            shape=(depth, height, width),
            chunks=(1, height, width),
            voxel_size_nm=(z, target_nm, target_nm),
            voxel_size_from="resampled",
            notes=(*source.info.notes, note),
        )

    def as_metadata(self) -> dict[str, Any]:
        """Return sizes, filter and the first pixel's place as JSON values."""
        return {
            "from_nm": list(self._from),
            "to_nm": self._to,
            "filter": self._filter,
            "first_centre_nm": [(self._to - size) / 2 for size in self._from],
        }

    @property
    def first_centre_px(self) -> tuple[float, float]:
        """Row and column of the first pixel's centre, from the source's first pixel's, in pixels of the result."""
        y, x = ((self._to - size) / 2 / self._to for size in self._from)
        return y, x

    def read(self, z: int, rows: slice, cols: slice) -> np.ndarray:
        """Return pixels of slice ``z``, (rows, cols), in the dtype of the source."""
        _, own_height, own_width = self.shape
        top, bottom, _ = rows.indices(own_height)
        left, right, _ = cols.indices(own_width)
        image = np.empty((bottom - top, right - left), self.dtype)
        # a whole slice in float64 may be larger than memory
        step = max(1, _BAND_PIXELS // max(1, math.ceil((right - left) * self._factors[1])))
        for row in range(top, bottom, step):
            band = slice(row, min(row + step, bottom))
            image[row - top : band.stop - top] = self._band(z, (band.start, band.stop), (left, right))
        return image

    def _band(self, z: int, rows: tuple[int, int], cols: tuple[int, int]) -> np.ndarray:
        _, height, width = self._source.shape
        down, across = _taps(rows, self._factors[0], height), _taps(cols, self._factors[1], width)
        image = self._source.read(z, down.needs, across.needs).astype(np.float64)
        # tap by tap in one fixed order, so that a pixel's rounding does not depend on its neighbours
        image = across.apply(down.apply(image).T).T
        if self.dtype.kind == "f":
            return image.astype(self.dtype)
        limits = np.iinfo(self.dtype)
        return np.clip(np.rint(image), limits.min, limits.max).astype(self.dtype)

    def limit_memory(self, most: int) -> int:
        """Pass it on to the source."""
        return self._source.limit_memory(most)

    def close(self) -> None:
        """Close the source."""
        self._source.close()


def coarser(image: np.ndarray, factor: float, shape: tuple[int, int]) -> np.ndarray:
    """Return ``image``, (H, W), made coarser: area means as of ``ResampledSource``, of ``factor`` pixels each way.

    Args:
        factor: 1 or more; need not be whole.
        shape: of the result, float32; from the first pixel on. ``image`` has at least ``factor`` times as many pixels.
    """
    if factor == 1:
        return image[: shape[0], : shape[1]].astype(np.float32)
    down, across = (_taps((0, n), factor, length) for n, length in zip(shape, image.shape, strict=True))
    image = image[down.needs, across.needs].astype(np.float64)
    return across.apply(down.apply(image).T).T.astype(np.float32)


def _length(side: int, factor: float) -> int:
    """Return how many pixels of ``factor`` touch ``side`` pixels; a thousandth of a pixel does not count."""
    return max(1, math.ceil(side / factor - 1e-3))


@dataclass(frozen=True)
class _Taps:
    """The source pixels, with their weights, of each pixel along one axis."""

    needs: slice  # of the source
    index: np.ndarray  # (pixels, taps), from needs.start on
    weight: np.ndarray  # (pixels, taps); rows sum to 1

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Return (pixels, columns) from (source pixels, columns)."""
        result = np.zeros((len(self.index), image.shape[1]))
        for tap in range(self.index.shape[1]):
            result += self.weight[:, tap, None] * image[self.index[:, tap]]
        return result


def _taps(span: tuple[int, int], factor: float, length: int) -> _Taps:
    """Return the taps of the pixels ``span``, for a source of ``length`` pixels."""
    pixels = np.arange(*span)
    if factor > 1:
        low = pixels * factor
        index, weight = _area(low, np.minimum(low + factor, length), math.ceil(factor) + 1)
    else:
        centre = (pixels + 0.5) * factor - 0.5
        index = np.floor(centre).astype(int)[:, None] + np.arange(-1, 3)
        weight = _keys(np.abs(index - centre[:, None]))
    index = np.clip(index, 0, length - 1)
    start, stop = int(index.min()), int(index.max()) + 1
    return _Taps(slice(start, stop), index - start, weight)


def _area(low: np.ndarray, high: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the source pixels, and their weights, for pixels that are means from ``low`` to ``high``.

    If an edge cuts a source pixel in two, each part counts with the slope between the pixel's neighbours; over the
    whole pixel the slope cancels. Without it, a ramp would be displaced by up to an eighth of a pixel.
    """
    cell = np.floor(low)[:, None] + np.arange(cells)
    left, right = np.maximum(cell, low[:, None]), np.minimum(cell + 1, high[:, None])
    share = np.clip(right - left, 0, None)
    slope = share * ((left + right) / 2 - cell - 0.5)
    weight = np.zeros((len(low), cells + 2))
    weight[:, 1:-1] += share
    weight[:, 2:] += slope / 2
    weight[:, :-2] -= slope / 2
    index = np.floor(low).astype(int)[:, None] + np.arange(-1, cells + 1)
    return index, weight / share.sum(axis=1, keepdims=True)


def _keys(distance: np.ndarray) -> np.ndarray:
    """Return the weights of cubic convolution. Source: Keys 1981, doi:10.1109/TASSP.1981.1163711, equation 15."""
    near = ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance**2 + 1
    far = _CUBIC * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))

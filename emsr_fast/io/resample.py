"""LR pixels of another size than the model was trained on: resampled in y and x, or refused with the figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from emsr_fast.errors import UsageError
from emsr_fast.io.pixel_size_advice import loses_detail, loss, remedies
from emsr_fast.io.volume import SourceVolume

# a model is asked to invent what its training never showed beyond this
LARGEST_MISMATCH = 0.15
# sizes come from rounded headers: closer than this they are the same
_SAME = 1e-3
_BAND_PIXELS = 2**22  # of the source, about; what is held in float64 at a time
_LARGEST_FACTOR = 1000  # beyond it a size is mistyped, in another unit for instance
_CUBIC = -0.5  # Keys' parameter: exact on parabolas


@dataclass(frozen=True)
class InputVoxel:
    """What ``input_voxel`` says: sizes in nm to resample from, the file's own if None, or no resampling at all."""

    resample: bool
    sizes_nm: tuple[float, float] | None = None  # y, x


def parse_input_voxel(text: str | None) -> InputVoxel | None:
    """Return the choice that ``input_voxel`` makes: "50" or "50,48" (y, x in nm), "file" or "ignore"; None if none.

    Raises:
        UsageError: something else, or sizes that are not positive.
    """
    if text is None:
        return None
    if text in ("file", "ignore"):
        return InputVoxel(resample=text == "file")
    try:
        sizes = [float(size) for size in text.split(",")]
    except ValueError:
        sizes = []
    if len(sizes) not in (1, 2) or not all(math.isfinite(size) and size > 0 for size in sizes):
        raise UsageError(
            f"`input_voxel` is {text!r}; give the input's pixel size in nm, such as 50, or Y,X such as 50,48, "
            "or file to take the file's, or ignore to run without resampling"
        )
    return InputVoxel(resample=True, sizes_nm=(sizes[0], sizes[-1]))


_SAME_SIZE = 0.0005  # a mismatch that prints as 0.0 %


def fit_to_model(
    source: SourceVolume,
    trained_nm: Sequence[float],
    model: str,
    choice: InputVoxel | None,
    say: Callable[[str], None] = lambda line: None,
    remedy: str | None = None,
) -> SourceVolume:
    """Return ``source``, resampled laterally to the nearest pixel size that the model was trained on if so chosen.

    Args:
        source: with its voxel size as far as the file states it.
        trained_nm: LR pixel sizes the model was trained on, from its card; may be empty.
        model: its name, for messages.
        choice: from ``parse_input_voxel``; with None a mismatch above 15 % is refused.
        say: called with each line on what was decided.
        remedy: what the refusal advises; by default the command line's choices, each with its cost.

    Raises:
        UsageError: the sizes do not match and nothing was chosen, or there is nothing to resample from or to.
    """
    stated = source.info.voxel_size_nm[1:]
    sizes = choice.sizes_nm if choice and choice.sizes_nm else stated
    trained = f"{model} was trained on input pixels of {', '.join(f'{size:g}' for size in trained_nm)} nm"
    if choice and choice.resample:
        if not trained_nm:
            raise UsageError(f"{model} does not say what pixel size it was trained on; leave `input_voxel` out")
        if sizes[0] is None or sizes[1] is None:
            raise UsageError(f"{source.info.path} does not state its pixel size; give it in nm: `input_voxel=50`")
        return _resampled(source, (sizes[0], sizes[1]), trained_nm, say)
    if not trained_nm:
        return source
    known = [size for size in stated if size is not None]
    # both sides against one size: the network saw square pixels
    worst = min(max((_mismatch(size, other) for size in known), default=0.0) for other in trained_nm)
    if not known:
        say(f"note    the input's pixel size is unknown; {trained}")
    elif worst > LARGEST_MISMATCH:
        sides = " x ".join("unknown" if side is None else f"{side:g}" for side in stated)
        figures = (
            f"input pixels are {sides} nm, {trained}: a mismatch of {100 * worst:.0f} %, "
            f"allowed is {100 * LARGEST_MISMATCH:.0f} %"
        )
        if choice is None:
            target = _nearest(math.exp(sum(map(math.log, known)) / len(known)), trained_nm)
            raise UsageError(f"{figures}; {remedy or remedies(stated, target)}")
        say(f"note    {figures}; ignored as asked")
    else:
        exact = worst < _SAME_SIZE
        near = f"{known[0]:g} nm is a size that {model} was trained on" if exact else trained
        say(f"note    {near}{'' if exact else f'; the input is within {100 * worst:.1f} % of one of them'}")
    return source


def _resampled(
    source: SourceVolume, sizes: tuple[float, float], trained_nm: Sequence[float], say: Callable[[str], None]
) -> SourceVolume:
    # one size for both: the network saw square pixels
    target = _nearest(math.sqrt(sizes[0] * sizes[1]), trained_nm)
    z = source.info.voxel_size_nm[0]
    if all(_mismatch(size, target) <= _SAME for size in sizes):
        say(f"note    input pixels of {target:g} nm are what the model was trained on: not resampled")
        return RelabelledSource(source, (z, *sizes))
    result = ResampledSource(source, sizes, target)
    for note in result.info.notes[len(source.info.notes) :]:
        say(f"note    {note}")
    if loses_detail(sizes, target):
        say(f"warning resampling from {loss(sizes, target)}; `input_voxel=ignore` keeps the detail")
    return result


def _nearest(size: float, others: Sequence[float]) -> float:
    return min(others, key=lambda other: _mismatch(size, other))


def _mismatch(one: float, other: float) -> float:
    return max(one / other, other / one) - 1


class RelabelledSource(SourceVolume):
    """A source whose pixel size the user stated."""

    def __init__(self, source: SourceVolume, voxel_size_nm: tuple[float | None, float | None, float | None]) -> None:
        self._source = source
        self.info = replace(source.info, voxel_size_nm=voxel_size_nm, voxel_size_from="`input_voxel`")

    def read(self, z: int, rows: slice, cols: slice) -> np.ndarray:
        """Return pixels of slice ``z``, (rows, cols)."""
        return self._source.read(z, rows, cols)

    def close(self) -> None:
        """Close the source."""
        self._source.close()


class ResampledSource(SourceVolume):
    """A source with other pixel sizes in y and x; a pixel's value depends on its place alone, not on what is read.

    The outer edges of the first pixels meet: pixel j of the result has its centre at ``(j + 1/2) f - 1/2`` of the
    source, f being the ratio of the sizes, so the size is exactly the one asked for. As many pixels as touch the source
    are made, of which the last may reach beyond it. Coarser (f > 1): each pixel is the mean of the source over its
    area, source pixels in part counted in part and with their slope, that part of the area which lies outside left out;
    means of the whole are kept, ramps not displaced, and whole f are plain binning. Finer (f < 1): Keys'
    cubic convolution (a = -1/2), edge pixels repeated. Integers are clipped and rounded half to even.
    """

    def __init__(self, source: SourceVolume, sizes_nm: tuple[float, float], target_nm: float) -> None:
        """Wrap ``source``.

        Args:
            source: read lazily.
            sizes_nm: its pixel sizes, (y, x).
            target_nm: what they become.
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

    def close(self) -> None:
        """Close the source."""
        self._source.close()


def _length(side: int, factor: float) -> int:
    """Return how many pixels of ``factor`` touch ``side`` pixels; a thousandth of a pixel does not count."""
    return max(1, math.ceil(side / factor - 1e-3))


@dataclass(frozen=True)
class _Taps:
    """Along one axis: which source pixels each pixel is made of."""

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
    """Return what pixels ``span`` are made of, of a source of ``length`` pixels."""
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
    """Return the source pixels, and their weights, whose mean over ``low`` to ``high`` a pixel is.

    Of a source pixel cut in two each part counts with the slope between its neighbours, which the two parts together
    do not feel: without it, a ramp would be displaced by up to an eighth of a pixel.
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

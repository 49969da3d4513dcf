"""Grey values in and out: one affine map for a whole volume, never one per tile."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from emsr_fast.errors import UsageError, VolumeError
from emsr_fast.io.outlier_values import outlier_values
from emsr_fast.model.config import INPUT_BOUNDS
from emsr_fast.wording import counted, quoted

if TYPE_CHECKING:
    from emsr_fast.io.volume import SourceVolume
    from emsr_fast.model.card import ModelCard

_PERCENTILES = (0.1, 99.9)
_SAMPLED_SLICES = 16
_SAMPLED_PIXELS = 2**20  # per slice, at most about this many
# what marks absent data in floats is larger: -3.4e38, 9.97e36, 1e20. No detector counts to the first of these, and
# a grey value divided by float32's rounding error, as a gain correction may do, stays below the second
_LARGEST_GREY = 1e18
_NO_DATA_RANGES = 1e9


@dataclass(frozen=True)
class Normalisation:
    """The map from a volume's grey values to the model's [0, 1]: ``(value - low) / (high - low)``, bounded."""

    low: float
    high: float
    origin: str  # where low and high are from, in words
    bounds: tuple[float, float] = INPUT_BOUNDS  # least and most that the network is given, in its own range
    note: str = ""  # what was assumed in measuring, "" where nothing had to be

    def to_model(self, image: np.ndarray) -> np.ndarray:
        """Return ``image`` as float32 in the model's range; values outside ``bounds`` become the nearer bound."""
        # in float64: large offsets would cost float32 its last digits
        return self.bounded((image.astype(np.float64) - self.low) / (self.high - self.low)).astype(np.float32)

    def bounded(self, values: np.ndarray) -> np.ndarray:
        """Return ``values`` of the model's range, those outside ``bounds`` as the nearer bound."""
        return np.clip(values, *self.bounds)

    @property
    def grey_bounds(self) -> tuple[float, float]:
        """``bounds`` in grey values."""
        least, most = (self.low + bound * (self.high - self.low) for bound in self.bounds)
        return least, most

    def count_beyond(self, image: np.ndarray) -> int:
        """Return how many pixels of ``image``, grey values without NaN, ``to_model`` changes to a bound."""
        least, most = map(np.float64, self.grey_bounds)
        # most images have none: their two ends tell that faster than all pixels
        if image.size == 0 or (image.min() >= least and image.max() <= most):
            return 0
        return int(np.count_nonzero((image < least) | (image > most)))

    def told_bounded(self, pixels: int, *, resampled: bool = False) -> str:
        """Return in words that ``pixels`` of the input, or of the resampled input, were beyond the bounds."""
        least, most = self.grey_bounds
        beyond = counted(pixels, "resampled pixel" if resampled else "input pixel")
        return (
            f"{beyond} below {least:.7g} or above {most:.7g}, set to the nearer of the two for the network: "
            "hot pixels, absent data, or a range that is too narrow"
        )

    def is_no_data(self, image: np.ndarray) -> np.ndarray:
        """Return which pixels of ``image`` mark absent data: floats more than 1e9 times the range away."""
        if image.dtype.kind != "f":
            return np.zeros(image.shape, bool)
        reach = np.float64(_NO_DATA_RANGES * (self.high - self.low))
        return (image < self.low - reach) | (image > self.high + reach)

    def from_model(self, image: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, int]:
        """Return ``image`` as grey values of ``dtype``, and how many pixels had to be clipped to its range.

        Integers are clipped to the dtype's full range, then rounded half to even; floats are not clipped.
        """
        values = image.astype(np.float64) * (self.high - self.low) + self.low
        if dtype.kind == "f":
            largest = float(np.abs(values).max(initial=0))
            if not largest <= np.finfo(dtype).max:
                raise VolumeError(f"an output value is {largest:.3g}, beyond {dtype.name}; rescale the input first")
            return values.astype(dtype), 0
        # rounding first, so that 255.4 counts as 255 and not as clipped
        values = np.rint(values)
        limits = np.iinfo(dtype)
        clipped = int(np.count_nonzero((values < limits.min) | (values > limits.max)))
        return np.clip(values, limits.min, limits.max).astype(dtype), clipped

    def describe(self) -> str:
        """Return the map in words, "12 .. 231 to 0 .. 1 (dtype range)"."""
        return f"{self.low:.7g} .. {self.high:.7g} to 0 .. 1 ({self.origin})"

    def as_metadata(self) -> dict[str, Any]:
        """Return low, high, their origin, the bounds and the note, if there is one, as JSON values."""
        values = {"low": self.low, "high": self.high, "origin": self.origin, "bounds": list(self.bounds)}
        return {**values, "note": self.note} if self.note else values


def for_model(source: SourceVolume, card: ModelCard, given: Normalisation | None = None) -> Normalisation:
    """Return the map for ``source``: ``given`` or measured, with the bounds of the model's ``card``.

    Raises:
        VolumeError: as ``measure``.
    """
    found = given or measure(source, by_percentile=card.normalisation == "percentile")
    return replace(found, bounds=card.input_bounds)


def dtype_range(dtype: np.dtype) -> Normalisation:
    """Return the map of the dtype's full range to [0, 1]; floats are taken to be in [0, 1] already."""
    if dtype.kind == "f":
        return Normalisation(0.0, 1.0, "dtype range")
    limits = np.iinfo(dtype)
    return Normalisation(float(limits.min), float(limits.max), "dtype range")


def parse_range(text: str, dtype: np.dtype) -> Normalisation:
    """Return the map of the setting ``intensity_range``: "LO:HI" in the volume's grey values, or "dtype".

    Raises:
        UsageError: neither form, or HI is not above LO.
    """
    if text == "dtype":
        return dtype_range(dtype)
    low_text, colon, high_text = text.partition(":")
    try:
        low, high = float(low_text), float(high_text)
    except ValueError:
        low, high = np.nan, np.nan
    if not colon or not np.isfinite([low, high]).all() or high <= low:
        raise UsageError(
            f"`intensity_range` is {quoted(text)}; give LO:HI in grey values with LO below HI, such as 0:4095, or dtype"
        )
    return Normalisation(low, high, "given")


def measure(source: SourceVolume, *, by_percentile: bool = False) -> Normalisation:
    """Return the map for ``source``: the dtype's range for 8 bits, else percentiles of slices across all of it.

    Args:
        source: sampled over its whole depth, so that runs over parts of one volume agree. Slices that cannot be read,
            and pixels that are NaN, infinite or beyond 1e18, are left out: the prediction reports them. A few values
            far from all others are left out, too (``outlier_values``), and named in the map's ``note``.
        by_percentile: use percentiles for 8 bits, too, for a model that was trained so.

    Raises:
        VolumeError: no sampled slice can be read, none has a finite pixel, or all sampled pixels are equal.
    """
    if source.dtype.kind in "ui" and source.dtype.itemsize == 1 and not by_percentile:
        return dtype_range(source.dtype)
    depth, height, width = source.shape
    # every n-th pixel both ways: thinning the rows alone would be blind to half of a checkerboard
    step = max(1, int(np.ceil(np.sqrt(height * width / _SAMPLED_PIXELS))))
    samples, unreadable = [], VolumeError(f"{source.info.path} has no slices")
    for z in np.unique(np.linspace(0, depth - 1, min(depth, _SAMPLED_SLICES)).round().astype(int)):
        try:
            image = source.read(int(z), slice(0, height), slice(0, width))
        except VolumeError as error:
            unreadable = error
            continue
        samples.append(image[::step, ::step].ravel())
    if not samples:
        raise unreadable
    values = np.concatenate(samples)
    if values.dtype.kind == "f":
        # NaN is not below it either
        values = values[np.abs(values) < np.float64(_LARGEST_GREY)]  # float16 has no such number
    if values.size == 0:
        raise VolumeError(
            f"{source.info.path} has no finite pixel below {_LARGEST_GREY:g} in {len(samples)} sampled slices; "
            "give images with finite pixels, or give `intensity_range=LO:HI`"
        )
    values = np.sort(values).astype(np.float64)
    outliers = outlier_values(values)
    note = outliers.told() if outliers else ""
    if outliers and outliers.left_out:
        values = outliers.rest
    low, high = (float(value) for value in np.percentile(values, _PERCENTILES))
    origin = f"percentiles {_PERCENTILES[0]} and {_PERCENTILES[1]} of {len(samples)} slices"
    if outliers and outliers.left_out:
        origin += f" without {outliers.count} pixels far from the others"
    if high <= low:
        # nearly all of it is background: the few other pixels are the image
        low, high = float(values[0]), float(values[-1])
        origin = f"minimum and maximum of {len(samples)} slices"
    if high <= low:
        raise VolumeError(
            f"{source.info.path} is constant: all sampled pixels are {low:g}, so there is no contrast to normalise; "
            "give images with contrast, or give `intensity_range=LO:HI` if that is intended"
        )
    return Normalisation(low, high, origin, note=note)


def check_finite(image: np.ndarray, z: int, source: SourceVolume) -> None:
    """Raise VolumeError if ``image`` of slice ``z`` is not finite; it names slice, count and the first position.

    Args:
        image: any part of the slice; the message is about the whole slice.
    """
    if image.dtype.kind != "f" or np.isfinite(image).all():
        return
    _, height, width = source.shape
    bad = ~np.isfinite(source.read(z, slice(0, height), slice(0, width)))
    row, column = np.argwhere(bad)[0]
    pixels = counted(int(np.count_nonzero(bad)), "NaN or infinite pixel")
    raise VolumeError(
        f"slice {z} of {source.info.path} has {pixels}, the first at row {row}, column {column}; "
        f"replace them, or leave slice {z} out"
    )


def check_grey_values(image: np.ndarray, z: int, source: SourceVolume, grey: Normalisation) -> None:
    """Raise VolumeError if ``image`` has pixels that are no grey values; it names slice, count and the first one.

    These are NaN, infinity, and floats that mark absent data (``Normalisation.is_no_data``).

    Args:
        image: any part of the slice ``z``; the message is about the whole slice.
    """
    check_finite(image, z, source)
    if not grey.is_no_data(image).any():
        return
    _, height, width = source.shape
    whole = source.read(z, slice(0, height), slice(0, width))
    marks = grey.is_no_data(whole)
    row, column = np.argwhere(marks)[0]
    pixels = counted(int(np.count_nonzero(marks)), "pixel")
    raise VolumeError(
        f"slice {z} of {source.info.path} has {pixels} of absent data, the first "
        f"{whole[row, column]:.6g} at row {row}, column {column}: more than {_NO_DATA_RANGES:g} times the grey range "
        f"{grey.low:.7g} .. {grey.high:.7g} away; replace them, or leave slice {z} out"
    )

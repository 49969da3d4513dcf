"""Super-resolution of arrays in memory: what ``infer`` does from file to file, with the same pixels."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from emsr_fast.errors import UsageError, VolumeError
from emsr_fast.infer.block_builder import FinishedBlock
from emsr_fast.infer.engine_feed import TileTooLarge
from emsr_fast.infer.pipeline import stream
from emsr_fast.infer.plan import Plan
from emsr_fast.infer.prepare import plan_for
from emsr_fast.infer.run import EngineOptions
from emsr_fast.infer.statistics import Statistics
from emsr_fast.infer.worker import load_engine, load_network
from emsr_fast.io.intensity import Normalisation, check_grey_values, for_model, parse_range
from emsr_fast.io.pixel_size import fit_to_model
from emsr_fast.io.volume import SourceVolume, VolumeInfo, as_pixels, check_pixels, output_dtype, pixel_dtype
from emsr_fast.io.voxels import UNKNOWN, VoxelSize
from emsr_fast.trust.maps import RESIDUAL, Trust

# engines and networks bring torch, which takes seconds
if TYPE_CHECKING:
    from emsr_fast.engine import Engine
    from emsr_fast.model import Emsr

_COLOURS = (3, 4)  # a last axis this short holds colours: no slice of a volume is so narrow
_REMEDY = "give another model, or leave pixel_nm out to run on the pixels as they are"


def super_resolve(
    array: Any,
    *,
    pixel_nm: float | tuple[float, float] | None = None,
    model: str | Path | Emsr | None = None,
    intensity_range: tuple[float, float] | str | None = None,
    tile: int | None = None,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> np.ndarray:
    """Return ``array``, an image or a stack of electron microscopy, super-resolved in y and x, slice by slice.

    The pixels are those that ``emsr-fast infer`` writes for a file with the same pixels, bit for bit.

    Args:
        array: (Y, X) or (Z, Y, X), grey values: uint8, int8, uint16, int16 or float32; float16, float64, int32
            and uint32 are processed and returned as float32, bool as uint8 of 0 and 255. Arrays that are read
            lazily (zarr, h5py, dask) are read slice by slice.
        pixel_nm: side of an input pixel in nm, or (y, x). With it, sizes more than 15 % from those that the model was
            trained on are refused. Nothing is resampled; ``input_voxel`` of ``emsr-fast infer`` does that.
        model: a shipped model's name (``available_models``), a model file, or a network from ``load_model``;
            the default model if None.
        intensity_range: (low, high), the grey values that become the model's 0 and 1, or "dtype" for the dtype's
            range. If None: the dtype's range for 8 bits, else the 0.1 and 99.9 percentiles of up to 16 slices across
            the stack.
        tile: side of a tile in input pixels, a multiple of 4; what fits the memory if None.
        device: "auto", "cpu", "cuda" or "cuda:N". A network from ``load_model`` runs where it is.
        progress: called after each tile with the input pixels done so far and those in all. An error that it raises
            ends the run.
        say: called with each line of what ``infer`` prints on pixel size, grey values and model.

    Returns:
        (scale * Y, scale * X) or (Z, scale * Y, scale * X) in the dtype of ``array``, or the one it was processed as.

    Raises:
        UsageError: an argument is out of range, the array has not two or three axes, or its pixels have another size
            than the model's.
        VolumeError: the pixels are no grey values, not finite, mark absent data, or are constant; or the result does
            not fit into memory.
        CheckpointError: there is no such model.
        BackendError: the device is not there, or its memory is too small for a tile.

    Warns:
        UserWarning: pixels far outside the range of grey values, such as hot ones, were bounded for the network; or
            were left out where the range was measured.
    """
    source = ArrayVolume(array, (None, *_pixel_sides(pixel_nm)))
    given = None if intensity_range is None else parse_range(_range_text(intensity_range), source.dtype)
    network = _network(model, device)
    # nothing is resampled: this says what is known of the pixel size, or refuses it
    fit_to_model(source, network.card.lr_pixel_nm, network.card.name, None, say, remedy=_REMEDY)
    grey = for_model(source, network.card, given)
    source.check_grey_values(grey)
    depth, height, width = source.shape
    plan = plan_for(network, source, ((0, depth), (0, height), (0, width)), tile=tile)
    engine, _ = load_engine(network, plan, EngineOptions(device=device))
    say(f"grey    {grey.describe()}")
    if grey.note:
        warnings.warn(grey.note, stacklevel=2)
    say(f"model   {network.card.name}, x{plan.scale}, window_fit {network.config.window_fit}")
    say(f"engine  {engine.name}")
    result = Result.empty(plan, source.dtype)
    done = 0

    def count(lr_pixels: int) -> None:
        nonlocal done
        done += lr_pixels
        if progress is not None:
            progress(done, plan.lr_pixels)

    compute(source, engine, plan, grey, result, progress=count)
    if result.bounded:
        warnings.warn(grey.told_bounded(result.bounded), stacklevel=2)
    return result.image if array.ndim == 3 else result.image[0]


class ArrayVolume(SourceVolume):
    """An array, (Y, X) or (Z, Y, X), as a volume. Of a lazy array only the pixels asked for are read."""

    def __init__(self, array: Any, voxel_size_nm: VoxelSize = UNKNOWN, name: str = "the array") -> None:
        """Wrap ``array``.

        Raises:
            UsageError: it is no array of (Y, X) or (Z, Y, X).
            VolumeError: its pixels are no grey values.
        """
        if not isinstance(getattr(array, "dtype", None), np.dtype):
            raise UsageError(f"{name} is a {type(array).__name__}; give a numpy array, (Y, X) or (Z, Y, X)")
        if array.ndim not in (2, 3):
            raise UsageError(f"{name} has the shape {tuple(array.shape)}; give one image (Y, X) or a stack (Z, Y, X)")
        if array.ndim == 3 and array.shape[2] in _COLOURS and min(array.shape[:2]) > max(_COLOURS):
            raise UsageError(
                f"{name} has the shape {tuple(array.shape)}, which is that of a colour image; "
                "give one of its channels, (Y, X)"
            )
        if np.ma.is_masked(array):
            raise UsageError(
                f"{name} has masked pixels, which would count as image; give it filled: array.filled(value)"
            )
        self._array = array
        depth, height, width = (int(side) for side in (array.shape if array.ndim == 3 else (1, *array.shape)))
        shape, dtype, path = (depth, height, width), array.dtype.newbyteorder("="), PurePath(name)
        notes = check_pixels(shape, dtype, path)
        self.info = VolumeInfo(
            path, "array", shape, pixel_dtype(dtype), "ZYX", (1, height, width), voxel_size_nm, "given", notes
        )

    def read(self, z: int, rows: slice, cols: slice) -> np.ndarray:
        """Return pixels of slice ``z``, (rows, cols)."""
        where = (z, rows, cols) if self._array.ndim == 3 else (rows, cols)
        return as_pixels(np.asarray(self._array[where]))

    def check_grey_values(self, grey: Normalisation) -> None:
        """Raise VolumeError, naming the slice, if a pixel is NaN, infinite, or marks absent data."""
        depth, height, width = self.shape
        if self.dtype.kind == "f":
            for z in range(depth):
                check_grey_values(self.read(z, slice(0, height), slice(0, width)), z, self, grey)

    def close(self) -> None:
        """Nothing to close: the array is the caller's."""


@dataclass
class Result:
    """The output of a plan, in memory, filled block by block."""

    scale: int
    image: np.ndarray  # (Z, scale * Y, scale * X)
    maps: dict[str, np.ndarray]  # of trust, float32, NaN until done; the residual has the input's pixels
    bounded: int = 0  # input pixels of what is done that were beyond what the network is given

    @classmethod
    def empty(cls, plan: Plan, dtype: np.dtype, trust: Trust | None = None) -> Result:
        """Return the result of ``plan`` for an input of ``dtype``, with nothing done.

        Raises:
            VolumeError: there is not enough memory.
        """
        small = tuple(stop - start for start, stop in plan.region)
        try:
            image = np.zeros(plan.output_shape, output_dtype(dtype))
            maps = {
                name: np.full(small if name == RESIDUAL else plan.output_shape, np.nan, np.float32)
                for name in (trust.names if trust else ())
            }
        except MemoryError as error:
            sides = " x ".join(map(str, plan.output_shape))
            raise VolumeError(
                f"a result of {sides} voxels does not fit into memory; give fewer slices at a time, "
                "or use emsr-fast infer, which writes to disk"
            ) from error
        return cls(plan.scale, image, maps)

    def take(self, finished: FinishedBlock) -> None:
        """Put a block where it belongs."""
        z, rows, cols = finished.block.output
        self.image[z, rows, cols] = finished.pixels
        self.bounded += finished.bounded
        for name, values in finished.maps.items():
            factor = self.scale if name == RESIDUAL else 1
            down, across = (slice(part.start // factor, part.stop // factor) for part in (rows, cols))
            self.maps[name][z, down, across] = values


def compute(
    source: SourceVolume,
    engine: Engine,
    plan: Plan,
    grey: Normalisation,
    result: Result,
    *,
    blocks: Iterable[int] | None = None,
    trust: Trust | None = None,
    progress: Callable[[int], None] | None = None,
) -> Statistics:
    """Super-resolve ``blocks`` of ``plan``, all by default, into ``result``; the same stream that ``infer`` uses.

    Where the engine runs out of memory on an automatic tile, its side is halved, as ``infer`` does.

    Args:
        progress: called after each tile with the number of LR pixels it owns.

    Raises:
        VolumeError: a slice cannot be read, or has NaN or no-data pixels.
        BackendError: the engine ran out of memory or returned something that is no image.
    """
    statistics = Statistics()
    left = dict.fromkeys(range(len(plan)) if blocks is None else blocks)

    def take(finished: FinishedBlock) -> None:
        result.take(finished)
        del left[plan.number_of(finished.block.index)]

    while True:
        to_do = [plan.block_at(number) for number in left]
        try:
            stream(
                to_do, source, engine, plan, grey, result.image.dtype, take,
                statistics=statistics, trust=trust, keep_going=False, progress=progress,
            )  # fmt: skip
            return statistics
        except TileTooLarge:
            if plan.tile_is_given or plan.halved() == plan:
                raise
            plan = plan.halved()


def _pixel_sides(pixel_nm: float | tuple[float, float] | None) -> tuple[float | None, float | None]:
    if pixel_nm is None:
        return None, None
    try:
        y, x = (float(side) for side in np.broadcast_to(pixel_nm, 2))
    except (TypeError, ValueError):
        y = x = math.nan
    if not all(math.isfinite(side) and side > 0 for side in (y, x)):
        raise UsageError(f"`pixel_nm` is {pixel_nm!r}; give the side of an input pixel in nm, such as 24.0, or (y, x)")
    return y, x


def _range_text(given: tuple[float, float] | str) -> str:
    """Return ``given`` as the command line has it: repr keeps every digit."""
    if isinstance(given, str):
        return given
    try:
        low, high = (float(value) for value in given)
    except (TypeError, ValueError) as error:
        raise UsageError(f'`intensity_range` is {given!r}; give two grey values, (low, high), or "dtype"') from error
    return f"{low!r}:{high!r}"


def _network(model: str | Path | Emsr | None, device: str) -> Emsr:
    if model is None or isinstance(model, str | os.PathLike):
        return load_network(model, None, EngineOptions(device=device))
    if device != "auto":
        raise UsageError(f"`device` is {device!r} and the model is loaded already; leave `device` out, or give a name")
    if not hasattr(model, "card"):
        raise UsageError(f"`model` is a {type(model).__name__}; give a name, a file, or what load_model returns")
    return model

"""Prediction: a source volume, tile by tile through an engine, into a target volume."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from emsr_fast.errors import BackendError, UsageError
from emsr_fast.volume.formats.base import SourceVolume, TargetVolume
from emsr_fast.volume.intensity import Normalisation, check_finite, measure
from emsr_fast.volume.tiles import Tile, check_tiling, grown, tiles_of

# engines bring torch, which takes seconds; what only prepares a prediction does without
if TYPE_CHECKING:
    from emsr_fast.engine.base import Engine

DEFAULT_TILE = 256
DEFAULT_HALO = 32


@dataclass(frozen=True)
class Prediction:
    """What a prediction did."""

    slices: int
    lr_pixels: int  # of the input, each counted once
    seconds: float
    clipped_fraction: float  # of the output's pixels, those outside the range of an integer dtype


def super_resolve(
    source: SourceVolume,
    target: TargetVolume,
    engine: Engine,
    *,
    tile: int = DEFAULT_TILE,
    halo: int = DEFAULT_HALO,
    slices: range | None = None,
    normalisation: Normalisation | None = None,
    equal_reads: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Prediction:
    """Super-resolve ``source`` slice by slice into ``target``, which the caller commits.

    Args:
        source: (Z, Y, X), integer or float; one slice at a time is held.
        target: (len(slices), scale * Y, scale * X); the first of ``slices`` becomes its slice 0.
        engine: runs the network; its scale is the target's.
        tile: side of what a tile owns, in LR pixels; a multiple of 4.
        halo: LR pixels read around it and thrown away; a multiple of 4.
        slices: which slices of ``source``, step 1; all by default.
        normalisation: the map of grey values to the model's range; measured on ``source`` by default.
        equal_reads: whether every tile reads tile + 2 * halo where the slice has as many, also at its ends: for engines
            that are built for one shape.
        progress: called after each tile with the number of LR pixels it owns.

    Raises:
        UsageError: tile, halo, slices or the target's shape do not fit.
        VolumeError: a slice cannot be read, has NaN pixels, or the output cannot be written.
        BackendError: the engine ran out of memory or returned something that is no image.
    """
    check_tiling(tile, halo)
    depth, height, width = source.shape
    slices = range(depth) if slices is None else slices
    expected = (len(slices), height * engine.scale, width * engine.scale)
    if target.spec.shape != expected:
        raise UsageError(f"target is {target.spec.shape}, but {engine.name} makes {expected} of this input")
    normalisation = measure(source, slices) if normalisation is None else normalisation
    start, clipped = time.perf_counter(), 0
    for index, z in enumerate(slices):
        for part in tiles_of(height, width, tile, halo):
            if equal_reads:
                part = grown(part, (tile + 2 * halo, tile + 2 * halo), (height, width))
            image = source.read(z, *part.read)
            check_finite(image, z, source)
            result = _run(engine, normalisation.to_model(image), part, z)
            block, clipped_here = normalisation.from_model(result, target.spec.dtype)
            target.write(index, *part.own_in_output(engine.scale), block)
            clipped += clipped_here
            if progress is not None:
                progress(part.pixels)
    return Prediction(
        slices=len(slices),
        lr_pixels=len(slices) * height * width,
        seconds=time.perf_counter() - start,
        clipped_fraction=clipped / max(1, expected[0] * expected[1] * expected[2]),
    )


def _run(engine: Engine, image: np.ndarray, part: Tile, z: int) -> np.ndarray:
    """Return the HR pixels that tile ``part`` owns, from ``image``, the LR pixels it reads."""
    height, width = image.shape
    place = f"slice {z}, rows {part.own[0].start}:{part.own[0].stop}, columns {part.own[1].start}:{part.own[1].stop}"
    try:
        result = engine.run(image[None, None])
    except (MemoryError, RuntimeError) as error:
        # torch has its own class on a GPU and a plain RuntimeError on a CPU
        if isinstance(error, MemoryError) or "memory" in str(error).lower():
            raise BackendError(
                f"{engine.name} ran out of memory on a tile of {height}x{width} px ({place}); give a smaller --tile"
            ) from error
        raise
    expected = (1, 1, height * engine.scale, width * engine.scale)
    if result.shape != expected:
        raise BackendError(f"{engine.name} returned shape {result.shape} for {place}, expected {expected}")
    owned: np.ndarray = result[0, 0][part.own_in_read(engine.scale)]
    if not np.isfinite(owned).all():
        bad = np.count_nonzero(~np.isfinite(owned))
        raise BackendError(
            f"{engine.name} returned {bad} NaN or infinite pixel(s) for {place}; "
            "check the model file, or run it with --device cpu"
        )
    return owned

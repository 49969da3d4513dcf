"""Prediction from a source volume into a target volume, both open: the same stream that ``infer`` uses, in one call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emsr_fast.errors import UsageError
from emsr_fast.infer.block_builder import FinishedBlock
from emsr_fast.infer.pipeline import stream
from emsr_fast.infer.plan import DEFAULT_HALO, Plan
from emsr_fast.infer.statistics import Statistics
from emsr_fast.infer.tiles import check_tiling
from emsr_fast.io.intensity import Normalisation, measure
from emsr_fast.io.volume import SourceVolume, TargetVolume

# engines bring torch, which takes seconds; what only prepares a prediction does without
if TYPE_CHECKING:
    from emsr_fast.engine.base import Engine

DEFAULT_TILE = 256


@dataclass(frozen=True)
class Prediction:
    """What a prediction did."""

    slices: int
    lr_pixels: int  # of the input, each counted once
    bounded_pixels: int  # of these, how many were beyond what the network is given (``Normalisation.bounds``)
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
        VolumeError: a slice cannot be read, has NaN or no-data pixels, or the output cannot be written.
        BackendError: the engine ran out of memory or returned something that is no image.
    """
    check_tiling(tile, halo)
    depth, height, width = source.shape
    slices = range(depth) if slices is None else slices
    expected = (len(slices), height * engine.scale, width * engine.scale)
    if target.spec.shape != expected:
        raise UsageError(f"target is {target.spec.shape}, but {engine.name} makes {expected} of this input")
    normalisation = measure(source) if normalisation is None else normalisation
    plan = Plan(
        shape=source.shape,
        region=((slices.start, slices.stop), (0, height), (0, width)),
        scale=engine.scale,
        tile=(tile, tile),
        halo=halo,
        block=(1, min(tile, height), min(tile, width)),
        tile_is_given=True,
        equal_reads=equal_reads,
    )

    def write(finished: FinishedBlock) -> None:
        z, rows, cols = finished.block.output
        target.write(z.start, rows, cols, finished.pixels[0])

    done = Statistics()
    blocks = (plan.block_at(number) for number in range(len(plan)))
    stream(
        blocks, source, engine, plan, normalisation, target.spec.dtype, write,
        statistics=done, keep_going=False, progress=progress,
    )  # fmt: skip
    return Prediction(
        slices=len(slices),
        lr_pixels=done.lr_pixels,
        bounded_pixels=done.bounded,
        seconds=done.seconds,
        clipped_fraction=done.clipped / max(1, expected[0] * expected[1] * expected[2]),
    )

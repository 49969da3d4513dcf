"""Super-resolves one region of one slice in memory, tile by tile, so that it can be shown and stopped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from emsr_fast.errors import UsageError
from emsr_fast.infer.array import Result, compute
from emsr_fast.infer.plan import DEFAULT_HALO, Plan
from emsr_fast.io.intensity import Normalisation
from emsr_fast.io.selection import Span
from emsr_fast.io.volume import SourceVolume
from emsr_fast.trust.maps import Trust

if TYPE_CHECKING:
    from emsr_fast.engine import Engine

_TILE = 128  # px: what a click on cancel waits for, and every step of the progress


@dataclass(frozen=True)
class Region:
    """Part of one slice, in pixels of the layer."""

    z: int
    rows: Span
    cols: Span


def visible_region(corners: np.ndarray, z: float, shape: tuple[int, int, int]) -> Region:
    """Return the region between two ``corners``, (2, 2) in rows and columns and both inside, cut to ``shape``.

    Raises:
        UsageError: nothing of the image is visible.
    """
    first = np.maximum(np.floor(corners[0]), 0).astype(int)
    last = np.minimum(np.ceil(corners[1]) + 1, shape[1:]).astype(int)
    depth = round(z)
    if (last <= first).any() or not 0 <= depth < shape[0]:
        raise UsageError("nothing of the image is visible; move it into the view, or press Home")
    return Region(depth, (int(first[0]), int(last[0])), (int(first[1]), int(last[1])))


def super_resolve_region(
    source: SourceVolume, engine: Engine, region: Region, grey: Normalisation, trust: Trust | None
) -> Iterator[tuple[int, int, Result]]:
    """Yield, after each tile of one slice, the tiles done, the tiles in all, and the result so far.

    The pixels are those of ``infer`` with the same ``roi`` and tiles of 128 px.
    """
    plan = Plan(
        shape=source.shape,
        region=((region.z, region.z + 1), region.rows, region.cols),
        scale=engine.scale,
        tile=(_TILE, _TILE),
        halo=DEFAULT_HALO,
        block=(1, min(_TILE, region.rows[1] - region.rows[0]), min(_TILE, region.cols[1] - region.cols[0])),
        tile_is_given=True,
    )
    result = Result.empty(plan, source.dtype, trust)
    for number in range(len(plan)):
        compute(source, engine, plan, grey, result, blocks=[number], trust=trust)
        yield number + 1, len(plan), result

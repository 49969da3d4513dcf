"""Super-resolving one region of one slice in memory, tile by tile, so that it can be watched and stopped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emsr_fast.errors import UsageError
from emsr_fast.trust.maps import RESIDUAL, Trust
from emsr_fast.volume.arguments import Span
from emsr_fast.volume.formats.base import SourceVolume, VolumeInfo, check_pixels, output_dtype
from emsr_fast.volume.intensity import Normalisation
from emsr_fast.volume.pipeline import FinishedBlock, Outcome, stream
from emsr_fast.volume.plan import DEFAULT_HALO, Plan

if TYPE_CHECKING:
    from emsr_fast.engine import Engine

_TILE = 128  # px: what a click on cancel waits for, and every step of the progress


class LayerVolume(SourceVolume):
    """The data of an image layer, (Y, X) or (Z, Y, X), as a volume."""

    def __init__(self, data: Any, name: str) -> None:
        self._data = data if data.ndim == 3 else data[None]
        depth, height, width = (int(side) for side in self._data.shape)
        shape, dtype, path = (depth, height, width), np.dtype(data.dtype), Path(name)
        notes = check_pixels(shape, dtype, path)
        self.info = VolumeInfo(path, "napari layer", shape, dtype, "ZYX", (1, height, width), notes=notes)

    def read(self, z: int, rows: slice, cols: slice) -> np.ndarray:
        """Return pixels of slice ``z``, (rows, cols)."""
        return np.asarray(self._data[z, rows, cols])

    def close(self) -> None:
        """Nothing to close: the layer keeps its data."""


@dataclass(frozen=True)
class Region:
    """Part of one slice, in pixels of the layer."""

    z: int
    rows: Span
    cols: Span


@dataclass(frozen=True)
class Result:
    """What a region became: (scale * rows, scale * cols) each, the map of the residual (rows, cols)."""

    region: Region
    scale: int
    image: np.ndarray
    maps: dict[str, np.ndarray]


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
    """Yield tiles done, tiles in all, and the result as far as it is done; the same pixels as ``infer`` makes."""
    plan = Plan(
        shape=source.shape,
        region=((region.z, region.z + 1), region.rows, region.cols),
        scale=engine.scale,
        tile=(_TILE, _TILE),
        halo=DEFAULT_HALO,
        block=(1, min(_TILE, region.rows[1] - region.rows[0]), min(_TILE, region.cols[1] - region.cols[0])),
        tile_is_given=True,
    )
    small = (region.rows[1] - region.rows[0], region.cols[1] - region.cols[0])
    names = trust.names if trust else ()
    maps = {name: np.full(small if name == RESIDUAL else plan.output_shape[1:], np.nan, np.float32) for name in names}
    result = Result(region, engine.scale, np.zeros(plan.output_shape[1:], output_dtype(source.dtype)), maps)

    def keep(finished: FinishedBlock) -> None:
        _, rows, cols = finished.block.output
        result.image[rows, cols] = finished.pixels[0]
        for name, values in finished.maps.items():
            factor = engine.scale if name == RESIDUAL else 1
            place = (slice(part.start // factor, part.stop // factor) for part in (rows, cols))
            result.maps[name][tuple(place)] = values[0]

    for number in range(len(plan)):
        stream(
            [plan.block_at(number)], source, engine, plan, grey, result.image.dtype, keep,
            outcome=Outcome(), trust=trust, keep_going=False,
        )  # fmt: skip
        yield number + 1, len(plan), result

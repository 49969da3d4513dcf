"""The stream of ``infer`` from an array into an array: no files, any engine, any tile."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emsr_fast.infer.pipeline import stream
from emsr_fast.infer.plan import Plan
from emsr_fast.infer.statistics import Statistics
from emsr_fast.io.intensity import Normalisation
from emsr_fast.io.volume import SourceVolume, VolumeInfo
from emsr_fast.io.voxels import UNKNOWN

# pixels that hold their own index are far outside any range
IDENTITY = Normalisation(0.0, 1.0, "given", bounds=(-np.inf, np.inf))


class ArraySource(SourceVolume):
    """An array as a volume."""

    def __init__(self, pixels, voxel=UNKNOWN):
        self.pixels = pixels
        self.info = VolumeInfo(Path("array"), "array", pixels.shape, pixels.dtype, "ZYX", (1, *pixels.shape[1:]), voxel)

    def read(self, z, rows, cols):
        return self.pixels[z, rows, cols]

    def close(self):
        pass


@dataclass
class Streamed:
    """What came out: pixels, the maps of trust by block, and the figures of the run."""

    pixels: np.ndarray
    maps: list
    statistics: Statistics


def streamed(
    engine,
    source,
    *,
    grey=IDENTITY,
    dtype=None,
    tile=(256, 256),
    halo=32,
    block=None,
    trust=None,
    equal_reads=False,
    keep_going=False,
    progress=None,
):
    """Super-resolve ``source``, an array or a volume, and check that each voxel is written once."""
    source = ArraySource(source) if isinstance(source, np.ndarray) else source
    depth, height, width = source.shape
    block = block or (1, min(tile[0], height), min(tile[1], width))
    region = ((0, depth), (0, height), (0, width))
    plan = Plan(source.shape, region, engine.scale, tile, halo, block, tile_is_given=True, equal_reads=equal_reads)
    done = Streamed(np.zeros(plan.output_shape, dtype or source.dtype), [], Statistics())
    writes = np.zeros(plan.output_shape, np.uint8)

    def write(finished):
        done.pixels[finished.block.output] = finished.pixels
        writes[finished.block.output] += 1
        done.maps.append(finished.maps)

    stream(
        map(plan.block_at, range(len(plan))), source, engine, plan, grey, done.pixels.dtype, write,
        statistics=done.statistics, trust=trust, keep_going=keep_going, progress=progress,
    )  # fmt: skip
    assert (writes == 1).all()
    return done

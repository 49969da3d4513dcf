"""A dry run: it tells blocks, bytes, memory and time. It computes one tile twice and writes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numcodecs import Blosc

from emsr_fast.errors import VolumeError
from emsr_fast.infer.plan import Plan
from emsr_fast.infer.run import Run
from emsr_fast.infer.trust_maps import BYTES_PER_HR_PX
from emsr_fast.io.volume import SourceVolume
from emsr_fast.io.writers.multiscale import levels_of
from emsr_fast.trust.maps import RUNS

if TYPE_CHECKING:
    from emsr_fast.engine.base import Engine

# beside the network: tiles waiting on either side of it, LR and HR float32
_TILES_HELD = 8


def estimate(
    run: Run,
    source: SourceVolume,
    engine: Engine,
    bytes_per_px: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Return blocks, bytes, memory and seconds that ``run`` would take, as JSON values, and say them.

    The middle tile of a slice near the middle is computed twice: the first time, a network prepares its weights.

    Raises:
        VolumeError: that tile cannot be read.
    """
    plan, spec = run.plan, run.output
    block = plan.block_at(plan.number_of((plan.grid[0] // 2, plan.grid[1] // 2, plan.grid[2] // 2)))
    tiles = list(plan.tiles(block))
    tile = tiles[len(tiles) // 2]
    middle = (block.own[0].start + block.own[0].stop) // 2
    # the run leaves out slices that cannot be read, so another one will do
    damaged, (first, last) = source.info.damaged, plan.region[0]
    near = (z for step in range(last - first) for z in (middle - step, middle + step))
    z = next((z for z in near if first <= z < last and z not in damaged), middle)
    image = source.read(z, *tile.read)
    if not np.isfinite(image).all():
        raise VolumeError(f"slice {z} has NaN pixels where the time would be measured; leave it out with `slices`")
    batch = run.normalisation.to_model(image)[None, None]
    engine.run(batch)
    start = time.perf_counter()
    result = engine.run(batch)
    seconds = time.perf_counter() - start
    pixels, _ = run.normalisation.from_model(result[0, 0], spec.dtype)
    packed = Blosc(cname="zstd", clevel=3, shuffle=Blosc.SHUFFLE).encode(np.ascontiguousarray(pixels))
    levels = levels_of(spec, plan.shard, run.ome_zarr, pyramid=run.pyramid)
    raw = sum(int(np.prod(level.shape, dtype=object)) for level in levels) * spec.dtype.itemsize
    read_px = _pixels_to_read(plan)
    block_bytes = int(np.prod(plan.shard)) * spec.dtype.itemsize
    runs, map_bytes = 1, 0
    if run.trust is not None:
        runs, map_bytes = RUNS, raw // spec.dtype.itemsize * BYTES_PER_HR_PX
        block_bytes += int(np.prod(plan.shard)) * BYTES_PER_HR_PX
    tile_bytes = _TILES_HELD * plan.largest_read_px * 4 * (1 + plan.scale**2)
    took_s = read_px * seconds * runs / image.size
    found: dict[str, Any] = {
        "blocks": len(plan),
        "block_shape": list(plan.shard),
        "tile": list(plan.tile),
        "bytes_uncompressed": raw + map_bytes,
        # of a map's 32 bits 16 are zeros
        "bytes_expected": round(raw * len(packed) / pixels.nbytes) + map_bytes // 2,
        "memory_bytes": plan.largest_read_px * bytes_per_px + 4 * block_bytes + tile_bytes,
        "lr_pixels": plan.lr_pixels,
        "lr_mpx_per_s": round(image.size / 1e6 / seconds / runs, 4),
        "halo_factor": round(read_px / plan.lr_pixels, 3),
        "seconds": round(took_s, 1),
    }
    hours, rest = divmod(round(took_s), 3600)
    say(f"blocks  {found['blocks']} of {' x '.join(map(str, plan.shard))} voxels")
    say(f"bytes   about {found['bytes_expected'] / 1e9:.3g} GB, at most {(raw + map_bytes) / 1e9:.3g} GB")
    say(f"memory  about {found['memory_bytes'] / 1e9:.2f} GB above the model")
    say(f"time    about {hours}:{rest // 60:02}:{rest % 60:02} on this engine, {found['lr_mpx_per_s']} LR Mpx/s")
    return found


def _pixels_to_read(plan: Plan) -> int:
    """Return the LR pixels that the network computes in all, halos included."""
    rows, cols = (sum(read * tiles for read, tiles in plan.reads_along(axis)) for axis in (1, 2))
    return plan.output_shape[0] * rows * cols

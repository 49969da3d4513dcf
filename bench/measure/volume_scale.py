"""Figures of docs/scale.md: memory on a sparse 100 GB volume, the network's share of time, workers, a million blocks.

    python bench/measure/volume_scale.py memory|share|workers|million [--blocks N]

Prints JSON. ``million`` sends no-op blocks through the plan and the scheduling that real ones take.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import zarr

from emsr_fast.infer.distributed import batches_of, results_of_batches
from emsr_fast.infer.job import infer
from emsr_fast.infer.plan import Plan

STACK = Path(__file__).parents[2] / "examples" / "data" / "flyem_fibsem_10nm_48x192x192.tif"


def sparse_volume(path: Path) -> None:
    """Make a Zarr of 1000 x 10000 x 10000 uint8, 100 GB, with a single chunk in it."""
    scale = {"type": "scale", "scale": [8, 8, 8]}
    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
    datasets = [{"path": "0", "coordinateTransformations": [scale]}]
    ome = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    group = zarr.create_group(path, attributes={"ome": ome})
    array = group.create_array("0", shape=(1000, 10000, 10000), chunks=(64, 256, 256), dtype="u1")
    array[0, 0, 0] = 1  # without any chunk it would be refused


def memory(model: str, blocks: int) -> dict:
    """Return the peak of this process above the loaded model, over the first blocks of a sparse 100 GB volume."""
    from emsr_fast import load_model
    from emsr_fast.engine import TorchEngine

    TorchEngine(load_model(model, device="cpu")).run(np.zeros((1, 1, 64, 64), np.float32))
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    with tempfile.TemporaryDirectory() as folder:
        sparse_volume(Path(folder) / "in.zarr")
        found = infer(
            Path(folder) / "in.zarr",
            Path(folder) / "a.zarr",
            model=model,
            device="cpu",
            input_voxel="ignore",
            dry_run=True,
        )
        # the first share of as many as there are blocks is the first block
        share = f"1/{max(1, found['blocks'] // blocks)}"
        done = infer(
            Path(folder) / "in.zarr",
            Path(folder) / "a.zarr",
            model=model,
            device="cpu",
            input_voxel="ignore",
            shard=share,
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "model": model,
        "blocks": done["blocks"],
        "of_blocks": found["blocks"],
        "tile": found["tile"],
        "predicted_mb": round(found["memory_bytes"] / 1e6),
        "above_model_mb": round((peak - loaded) / 1e6),
        "seconds": done["seconds"],
        "network_fraction": done["network_fraction"],
    }


def share(model: str) -> dict:
    """Return the network's share of the wall time of a whole run on a real stack."""
    with tempfile.TemporaryDirectory() as folder:
        done = infer(STACK, Path(folder) / "a.zarr", model=model, device="cpu", input_voxel="ignore")
    return {name: done[name] for name in ("blocks", "seconds", "network_fraction", "lr_mpx_per_s")} | {"model": model}


def workers(slices: int) -> dict:
    """Return the seconds of the same run by one and by two workers of one thread each, clusters running already."""
    from distributed import LocalCluster

    taken: dict[int, float] = {}
    options = {"device": "cpu", "input_voxel": "ignore", "slices": f":{slices}", "max_memory": "60MB", "tile": 96}
    with tempfile.TemporaryDirectory() as folder:
        for count in (1, 2):
            with LocalCluster(
                n_workers=count, threads_per_worker=1, processes=True, memory_limit=0, dashboard_address=":0"
            ) as cluster:
                where = cluster.scheduler_address
                # the workers load the engine: that is not what is compared
                infer(STACK, Path(folder) / f"warm{count}.zarr", dask=where, **options | {"slices": ":4"})
                infer(STACK, Path(folder) / f"warm{count}b.zarr", dask=where, **options | {"slices": ":4"})
                done = infer(STACK, Path(folder) / f"{count}.zarr", dask=where, **options)
                taken[count] = done["seconds"]
    return {"slices": slices, "seconds": taken, "speed_up": round(taken[1] / taken[2], 2)}


def no_op(numbers: list[int]) -> int:
    """Do nothing with a batch of blocks."""
    return len(numbers)


def million(blocks: int) -> dict:
    """Return what planning and scheduling cost for no-op blocks, as batches and one by one."""
    from distributed import Client, LocalCluster

    side = round(blocks ** (1 / 3))
    plan = Plan((16 * side, 900 * side, 900 * side), ((0, 16 * side), (0, 900 * side), (0, 900 * side)), 3, (900, 900),
                32, (16, 900, 900), tile_is_given=True)  # fmt: skip
    start = time.perf_counter()
    seen = sum(plan.number_of(plan.block_at(number).index) == number for number in range(len(plan)))
    planned = time.perf_counter() - start
    found = {"blocks": len(plan), "plan_s": round(planned, 2), "each_seen_once": seen == len(plan)}
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        for name, numbers, batches in (
            ("batches", len(plan), batches_of(list(range(len(plan))), 2)),
            ("single", 5000, iter([[number] for number in range(5000)])),
        ):
            list(results_of_batches(client, no_op, iter([[0]] * 50), (), 6))
            start, own = time.perf_counter(), time.process_time()
            sizes = [done for _, done in results_of_batches(client, no_op, batches, (), 6)]
            seconds = time.perf_counter() - start
            assert sum(sizes) == numbers
            found[name] = {
                "tasks": len(sizes),
                "seconds": round(seconds, 2),
                "ms_per_task": round(1e3 * seconds / len(sizes), 3),
                # the scheduler and the client live in this process
                "processor_ms_per_task": round(1e3 * (time.process_time() - own) / len(sizes), 3),
            }
    return found | {"peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)}


def main() -> int:
    """Print one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["memory", "share", "workers", "million"])
    parser.add_argument("--model", default="emsr-x3-small")
    parser.add_argument("--blocks", type=int)
    parser.add_argument("--slices", type=int, default=24)
    given = parser.parse_args()
    if given.what == "memory":
        found = memory(given.model, given.blocks or 1)
    elif given.what == "share":
        found = share(given.model)
    elif given.what == "workers":
        found = workers(given.slices)
    else:
        found = million(given.blocks or 1_000_000)
    print(json.dumps({"what": given.what, **found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

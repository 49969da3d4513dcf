"""Time of a whole slice through `emsr-fast infer` beside the published formulation and tiling, as Markdown.

    python bench/measure/slice_cpu.py --size 1024 --timed 2 --threads 2 [--json FILE]

Ours is `infer` from file to file with the paper's network: opening, model loading, tiles with halos, network, rounding
and writing. Theirs is the network alone in torch eager as published (emsr_fast/reference/published.py): tiles of 341 px
every 170 px, one at a time; ``--timed`` of them are timed and scaled up to all, which leaves out reading, blending and
writing, in their favour. Ours runs before and after; the ratio is that of the published mean to our median.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
import torch
from PIL import Image

from emsr_fast import load_model
from emsr_fast.bench import machine
from emsr_fast.infer import job
from emsr_fast.reference import published
from scripts import add_common, rerun_with_isa, write_json

EXAMPLE = Path(__file__).parents[2] / "examples" / "data" / "rat_spinal_whitematter_sem_70nm_512.png"
MODEL = "emsr-x3"


def real_slice(size: int) -> np.ndarray:
    """Return (size, size) uint8 of real SEM, mirrored where the example ends."""
    image = np.asarray(Image.open(EXAMPLE).convert("L"))
    return np.pad(image, [(0, max(0, size - n)) for n in image.shape], mode="symmetric")[:size, :size]


class Seconds(NamedTuple):
    """Of the clock, and of all threads' processor time, which other programs disturb less."""

    wall: float
    processor: float


def timed(run: Callable[[], object]) -> Seconds:
    start = time.perf_counter(), time.process_time()
    run()
    return Seconds(time.perf_counter() - start[0], time.process_time() - start[1])


def seconds_of_infer(image: np.ndarray, folder: Path, **options: int) -> Seconds:
    source = folder / "slice.tif"
    tifffile.imwrite(source, image)
    return timed(lambda: job.infer(source, folder / "out.tif", model=MODEL, device="cpu", overwrite=True, **options))


def seconds_per_published_tile(image: np.ndarray, count: int) -> list[Seconds]:
    model = load_model(MODEL, device="cpu")
    network = functools.partial(published.forward, model.state_dict(), heads=model.config.heads)
    y = torch.from_numpy(image.astype(np.float32) / 255)
    places = list(published.tiles(*image.shape))
    seconds = []
    with torch.inference_mode():
        network(y[:64, :64][None, None])  # warms up what does not depend on the size
        for rows, cols in places[:: max(1, len(places) // count)][:count]:
            tile = y[rows, cols][None, None].contiguous()
            seconds.append(timed(functools.partial(network, tile)))
    return seconds


def table(row: Mapping[str, Any]) -> str:
    """Return what was measured as a Markdown table."""
    lines = [
        f"| | `emsr-fast infer`, {row['runs']} runs | published, {row['published_tiles']} tiles of 341 px: "
        f"{row['published_timed']} timed, scaled up | times ours |",
        "|---|---|---|---|",
    ]
    for clock, name in (("wall", "seconds"), ("processor", "processor seconds, all threads")):
        figures = row[clock]
        lines.append(f"| {name} | {figures['ours']:.1f} | {figures['published']:.0f} | {figures['ratio']:.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="side of the slice, LR pixels")
    parser.add_argument("--timed", type=int, default=2, help="published tiles that are timed; the rest is extrapolated")
    parser.add_argument("--repeats", type=int, default=1, help="runs of ours before and after")
    parser.add_argument("--tile", type=int, help="infer's --tile; its own default if not given")
    add_common(parser)
    arguments = parser.parse_args()
    rerun_with_isa(arguments.isa)
    torch.set_num_threads(arguments.threads)
    image = real_slice(arguments.size)
    options = {"tile": arguments.tile} if arguments.tile else {}
    with tempfile.TemporaryDirectory() as folder:
        ours = [seconds_of_infer(image, Path(folder), **options) for _ in range(arguments.repeats)]
        tiles = seconds_per_published_tile(image, arguments.timed)
        ours += [seconds_of_infer(image, Path(folder), **options) for _ in range(arguments.repeats)]
    total = len(list(published.tiles(*image.shape)))
    row: dict[str, object] = {"runs": len(ours), "published_tiles": total, "published_timed": len(tiles)}
    for clock in Seconds._fields:
        mine = statistics.median(getattr(s, clock) for s in ours)
        theirs = statistics.mean(getattr(s, clock) for s in tiles) * total
        row[clock] = {"ours": mine, "published": theirs, "ratio": theirs / mine}
    facts = machine.describe()
    print(f"{arguments.size}x{arguments.size} slice, {MODEL}, {facts['threads']} threads, {facts['kernels']}\n")
    print(table(row))
    settings = {"size": arguments.size, "model": MODEL, "tile": arguments.tile or "default"}
    write_json(arguments.json, "slice_cpu", settings, [row])


if __name__ == "__main__":
    main()

"""Print, as a Markdown table, how far tiled prediction is from untiled prediction for each halo.

Usage: python bench/measure/halo.py [MODEL ...]

The table in docs/tiling.md comes from here: shipped models on the shipped images, tiles of 64 LR px, so that a
slice has many borders; differences in grey levels of 255.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tifffile
import torch
from PIL import Image

from emsr_fast import available_models, load_model
from emsr_fast.engine import TorchEngine
from emsr_fast.infer.tiles import tiles_of

EXAMPLES = Path(__file__).parents[2] / "examples" / "data"
HALOS = (0, 8, 16, 24, 32, 48, 64, 112)
TILE = 64


def images() -> dict[str, np.ndarray]:
    """Return the shipped slices, grey values in [0, 1]: noisy as acquired, and the SEM one."""
    stack = tifffile.imread(EXAMPLES / "flyem_fibsem_10nm_48x192x192.tif")
    sem = np.asarray(Image.open(EXAMPLES / "rat_spinal_whitematter_sem_70nm_512.png"))
    return {"FIB-SEM 192x192": stack[24] / np.float32(255), "SEM 512x512": sem / np.float32(255)}


def tiled(engine: TorchEngine, image: np.ndarray, tile: int, halo: int) -> np.ndarray:
    """Return the HR image that tiles of ``tile`` px with ``halo`` give."""
    out = np.full([engine.scale * side for side in image.shape], np.nan, dtype=np.float32)
    for part in tiles_of(*image.shape, tile, halo):
        hr = engine.run(image[part.read][None, None])[0, 0]
        out[part.own_in_output(engine.scale)] = hr[part.own_in_read(engine.scale)]
    return out


def main() -> None:
    names = sys.argv[1:] or available_models()
    print(f"torch {torch.__version__}, float32, CPU, tile {TILE} px")
    print("| model | image | halo (LR px) | largest difference | 99.9th percentile | RMS |")
    print("|---|---|---|---|---|---|")
    for name in names:
        engine = TorchEngine(load_model(name, device="cpu"))
        for title, image in images().items():
            whole = engine.run(image[None, None])[0, 0]
            for halo in HALOS:
                error = np.abs(tiled(engine, image, TILE, halo) - whole) * 255
                worst, rms = error.max(), np.sqrt(np.mean(error**2))
                print(f"| {name} | {title} | {halo} | {worst:.5f} | {np.percentile(error, 99.9):.5f} | {rms:.6f} |")


if __name__ == "__main__":
    main()

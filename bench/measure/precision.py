"""Print, as a Markdown table, what float16 and bfloat16 change in the shipped models' output.

Usage: python bench/measure/precision.py [MODEL ...]

The network in plain PyTorch on a CPU, weights and features rounded to the precision, against float64, on crops of the
shipped images; grey levels of 255. README quotes it.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import numpy as np
import tifffile
import torch
from PIL import Image
from torch import Tensor

from emsr_fast import _backends, available_models, load_model
from emsr_fast.engine.torch_engine import PRECISIONS

EXAMPLES = Path(__file__).parents[2] / "examples" / "data"
SIDE = 96


def images() -> dict[str, Tensor]:
    """Return a crop of each shipped image, (1, 1, SIDE, SIDE), grey values in [0, 1]."""
    stack = tifffile.imread(EXAMPLES / "flyem_fibsem_10nm_48x192x192.tif")
    sem = np.asarray(Image.open(EXAMPLES / "rat_spinal_whitematter_sem_70nm_512.png"))
    crops = {"FIB-SEM": stack[24][:SIDE, :SIDE], "SEM": sem[200 : 200 + SIDE, 200 : 200 + SIDE]}
    return {title: torch.from_numpy(crop / 255.0)[None, None] for title, crop in crops.items()}


def levels(image: Tensor) -> Tensor:
    return (image.clamp(0, 1) * 255).round()


@torch.inference_mode()
def main() -> None:
    print("| model | image | precision | largest difference | PSNR, dB | 8-bit pixels changed |")
    print("|---|---|---|---|---|---|")
    for name in sys.argv[1:] or available_models():
        model = load_model(name, device="cpu")
        for title, y in images().items():
            with _backends.use_backend("reference"):
                exact = copy.deepcopy(model).double()(y.double())
                for precision, dtype in PRECISIONS.items():
                    out = copy.deepcopy(model).to(dtype)(y.to(dtype)).double()
                    error = out - exact
                    psnr = -10 * torch.log10(error.square().mean())
                    changed = 100 * (levels(out) != levels(exact)).double().mean()
                    largest = 255 * error.abs().max()
                    print(f"| {name} | {title} | {precision} | {largest:.4f} | {psnr:.1f} | {changed:.3f} % |")


if __name__ == "__main__":
    main()

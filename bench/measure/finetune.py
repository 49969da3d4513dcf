"""Print what ``emsr-fast finetune`` gains on slices that it never saw, as a Markdown table.

Usage: EMSR_DATA=folder of training images python bench/measure/finetune.py [MINUTES | STEPSsteps ...]

Finetunes on vnc_larva_sstem_4.6nm, stack1; judges on stack2: every fifth slice, whole, PSNR in dB after a least-squares
affine fit, data range 255; LR is the 3x3 area mean, without and with white noise of 10 grey levels. "cores" is the
processor time that the training got for each second: on a machine that others use it is less than the threads, and
steps are fewer. The last set is pure noise, of which nothing can be learnt but its mean.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from emsr_fast import load_model
from emsr_fast.engine import TorchEngine
from emsr_fast.model.zoo import DEFAULT_MODEL
from emsr_fast.train.finetune import finetune
from quality import BASELINES, decibels, grey, method_of

NOISE = (0, 10)


def judged(model: str, images: list[np.ndarray]) -> list[float]:
    """Return the PSNR of bicubic interpolation and of ``model``, for every level of noise."""
    methods = {"bicubic": BASELINES["bicubic"], "model": method_of(TorchEngine(load_model(model, device="cpu")))}
    return [value for sigma in NOISE for value in decibels(methods, [(image, image) for image in images], sigma)]


def row(name: str, figures: list[float], start: list[float], more: str) -> str:
    """Return a line of the table."""
    cells = [f"{after:.2f} ({after - before:+.2f})" for after, before in zip(figures[1::2], start[1::2], strict=True)]
    return f"| {name} | {more} | " + " | ".join(cells) + " |"


def main() -> None:
    data = Path(os.environ["EMSR_DATA"]) / "vnc_larva_sstem_4.6nm"
    unseen = [grey(path) for path in sorted(data.glob("stack2_*.png"))[::5]]
    start = judged(DEFAULT_MODEL, unseen)
    print("| model | steps | minutes | cores | " + " | ".join(f"LR noise {sigma}" for sigma in NOISE) + " |")
    print("|---|---|---|---|" + "---|" * len(NOISE))
    print("| bicubic | | | | " + " | ".join(f"{value:.2f}" for value in start[::2]) + " |")
    print(row(DEFAULT_MODEL, start, start, "| |"))
    with tempfile.TemporaryDirectory() as folder:
        for number, limit in enumerate(sys.argv[1:] or ["3"]):
            steps = int(limit.removesuffix("steps")) if limit.endswith("steps") else None
            before, clock = time.process_time(), time.monotonic()
            done = finetune(
                sorted(data.glob("stack1_*.png")),
                output=Path(folder) / f"{number}.safetensors",
                minutes=600 if steps else float(limit),
                steps=steps,
                pixel_nm=4.6,
                say=lambda line: print(line, file=sys.stderr, flush=True),
            )
            cores = (time.process_time() - before) / (time.monotonic() - clock)
            more = f"{done['steps']} | {done['seconds'] / 60:.1f} | {cores:.2f}"
            print(row("finetuned", judged(done["output"] or DEFAULT_MODEL, unseen), start, more), flush=True)
        rng = np.random.default_rng(0)
        for number in range(10):
            noise = rng.normal(128, 40, (384, 384)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noise).save(Path(folder) / f"noise_{number}.png")
        done = finetune(
            sorted(Path(folder).glob("noise_*.png")), output=Path(folder) / "noise.safetensors", minutes=1, say=print
        )
        print(f"\nPure noise: kept {done['kept']}, {done['metrics'].get('held_back_psnr_db')}")


if __name__ == "__main__":
    main()

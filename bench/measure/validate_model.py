"""Say whether a model file may replace the shipped model of its name: every demand, what was measured, met or not.

Usage: EMSR_DATA=folder python bench/measure/validate_model.py MODEL.safetensors [BEFORE]

BEFORE is the shipped model of the same name, or another model or file. Images are those of quality.py, held back from
all training. Gains are in dB of PSNR over bicubic interpolation, after an affine fit of intensities. Exit code 1 if a
demand is not met. Two minutes on one core.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from emsr_fast import load_model
from emsr_fast.engine import TorchEngine
from emsr_fast.io.resample import coarser
from quality import BASELINES, SCALE, decibels, method_of, validation_sets

NOISE = (0, 10)  # of LR, grey levels
LEAST_MEAN_DB = 0.3  # more than before, mean over the sets at LR noise 10
MOST_LOST_DB = 0.05  # of any set
LEAST_SHARE = 0.7  # of the best gain, over the reductions of one image
REDUCED = "larva"  # the set whose first image is reduced
REDUCTIONS = np.linspace(1, 3, 8)
FLAT_SIGMAS = range(1, 26)
MOST_GREY = 0.5  # of 255, by which a plain image may change
EDGE = 24  # px of the result beside a step or an edge of the image, left out: a network may overshoot there

Demand = tuple[bool, str]  # met, and what was measured


def judged_sets(before: TorchEngine, after: TorchEngine, data: Path) -> Iterator[Demand]:
    """Print the gains on every set; yield what is asked of them."""
    methods = {"bicubic": BASELINES["bicubic"], "before": method_of(before), "after": method_of(after)}
    more: dict[int, list[float]] = {sigma: [] for sigma in NOISE}
    print("| validation set | LR noise | bicubic | before | after | change |\n|---|---|---|---|---|---|")
    for title, pairs in validation_sets(data):
        for sigma in NOISE:
            bicubic, old, new = decibels(methods, pairs, sigma)
            more[sigma].append(new - old)
            cells = f"{bicubic:.2f} | {old - bicubic:+.2f} | {new - bicubic:+.2f} | {new - old:+.2f}"
            print(f"| {title} | {sigma} | {cells} |", flush=True)
            if sigma == 0 and "itself" not in title:
                yield new >= bicubic, f"{title}, no LR noise: {new - bicubic:+.2f} dB over bicubic"
    worst = min(min(changes) for changes in more.values())
    yield worst >= -MOST_LOST_DB, f"no set loses more than {MOST_LOST_DB} dB: {worst:+.3f}"
    mean = float(np.mean(more[10]))
    yield mean >= LEAST_MEAN_DB, f"mean over all sets at LR noise 10, {LEAST_MEAN_DB} dB more than before: {mean:+.3f}"
    everywhere = float(np.mean([*more[0], *more[10]]))
    yield everywhere > 0, f"mean over all sets and both noises, more than before: {everywhere:+.3f} dB"


def judged_reductions(engine: TorchEngine, data: Path) -> Iterator[Demand]:
    """Yield whether the gain on one image holds at every pixel size."""
    image = next(pairs[0][0] for title, pairs in validation_sets(data) if REDUCED in title)
    methods = {"bicubic": BASELINES["bicubic"], "model": method_of(engine)}
    for sigma in NOISE:
        gains = []
        for factor in REDUCTIONS:
            height, width = (int(side / factor) // SCALE * SCALE for side in image.shape)
            reference = coarser(image, float(factor), (height, width))
            bicubic, model = decibels(methods, [(reference, reference)], sigma)
            gains.append(model - bicubic)
        shown = ", ".join(f"{gain:+.2f}" for gain in gains)
        yield (
            min(gains) >= LEAST_SHARE * max(gains),
            f"8 reductions from 1 to 3, LR noise {sigma}, gain at least {LEAST_SHARE:.0%} of its best: {shown}",
        )


def judged_plain(engine: TorchEngine) -> Iterator[Demand]:
    """Yield whether noise comes out flatter, and a constant, a step and a grid keep their grey level."""
    run = method_of(engine)
    noise = np.random.default_rng(1).standard_normal((96, 96), dtype=np.float32)
    left = [float(run(grey + s * noise).std() / (s * noise.std())) for grey in (90, 128) for s in FLAT_SIGMAS]
    yield max(left) < 1, f"pure noise of 1 to 25 grey levels comes out flatter: at most {max(left):.2f} of it is left"
    offs = [run(np.full((64, 64), g, np.float32))[EDGE:-EDGE, EDGE:-EDGE] - g for g in (10, 60, 128, 200, 245)]
    off, most = max(abs(float(one.mean())) for one in offs), max(float(np.abs(one).max()) for one in offs)
    yield off <= MOST_GREY, f"a constant keeps its mean grey level to {MOST_GREY}: {off:.2f} (a pixel: {most:.2f})"
    step = np.where(np.arange(96) < 48, 80, 170).astype(np.float32) * np.ones((96, 1), np.float32)
    sides = run(step)[:, : SCALE * 48 - EDGE], run(step)[:, SCALE * 48 + EDGE :]
    off = max(abs(float(side.mean()) - g) for side, g in zip(sides, (80, 170), strict=True))
    yield off <= MOST_GREY, f"both sides of a step keep their mean grey level to {MOST_GREY}: {off:.2f}"
    y, x = np.mgrid[:96, :96]
    for period in (4, 8, 16):
        grid = np.where((y % period == 0) | (x % period == 0), 180, 90).astype(np.float32)
        off = abs(float(run(grid).mean() - grid.mean()))
        yield off <= MOST_GREY, f"a grid of {period} px keeps its mean grey level to {MOST_GREY}: {off:.2f}"


def main() -> None:
    data = Path(os.environ["EMSR_DATA"])
    model = load_model(sys.argv[1], device="cpu")
    after = TorchEngine(model)
    before = TorchEngine(load_model(sys.argv[2] if len(sys.argv) > 2 else model.card.name, device="cpu"))
    demands = [
        *judged_sets(before, after, data),
        *judged_reductions(after, data),
        *judged_plain(after),
    ]
    print()
    for met, measured in demands:
        print(f"{'met' if met else 'NOT MET':8}{measured}")
    raise SystemExit(not all(met for met, _ in demands))


if __name__ == "__main__":
    main()

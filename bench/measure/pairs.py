"""Print how exactly a known pose is found again, and the NCC of unrelated and registered slices, as Markdown tables.

Usage: [EMSR_DATA=folder of training images] python bench/measure/pairs.py

The tables in docs/pairs.md come from here. An HR field is cut out of the shipped SEM picture; LR is computed from the
whole picture with cubic splines, turned, magnified and shifted, averaging 4 x 4 points of each LR pixel; white noise is
added to both. For the second table LR is bent by smooth waves too; it needs the extra bspline. The third needs
EMSR_DATA: repeat scans, partners against strangers.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "helpers"))
import fields
from emsr_fast.pair.deform import deform
from emsr_fast.pair.find_field import Bounds, locate
from emsr_fast.pair.pose import Pose
from emsr_fast.pair.refine import Field, Slice, refine
from emsr_fast.train.config import Source
from emsr_fast.train.pairs import _likeness, pairs_of

SEM = Path(__file__).parents[2] / "examples" / "data" / "rat_spinal_whitematter_sem_70nm_512.png"
RATIO, LR_SHAPE, POSES = 3.33, (150, 150), 12
FIELDS, WAVES_PX = 4, 70  # LR px


class Memory:
    """A slice in memory."""

    def __init__(self, image: np.ndarray) -> None:
        self.pixels = image.astype(np.float32)[None]
        self.shape, self.dtype = self.pixels.shape, self.pixels.dtype
        self.info = SimpleNamespace(path="memory", voxel_size_nm=(None, None, None))

    def read(self, z: int, rows: slice, cols: slice) -> np.ndarray:
        return self.pixels[z, rows, cols]


def errors(side: int, noise: float) -> np.ndarray:
    """Return shift (px), turn (degrees) and magnification (%) errors, (POSES, 3), of fields of ``side`` HR px."""
    image = np.asarray(Image.open(SEM)).astype(np.float64)
    found = []
    for seed in range(POSES):
        rng = np.random.default_rng(seed)
        share, degrees, ratio = rng.uniform(0, 1, 2), rng.uniform(-4.5, 4.5), RATIO * rng.uniform(0.955, 1.045)
        corner, to_lr = (share * (512 - side)).astype(int), fields.matrix(ratio, degrees)
        centre = fields.centre_at(share, (side, side), to_lr, LR_SHAPE)
        lr = fields.acquired_lr(image, corner, (side, side), centre, to_lr, LR_SHAPE)
        hr = image[corner[0] : corner[0] + side, corner[1] : corner[1] + side]
        volumes = [Memory(a + noise * rng.standard_normal(a.shape)) for a in (lr, hr)]
        options = {"offset": None, "min_ncc": 0.6, "say": print}
        pose: Pose = locate(*volumes, range(1), 3, Bounds(RATIO, 5, 0.05), **options).pose
        shift = np.linalg.norm(pose.centre - centre)
        found.append((shift, abs(pose.rotation_deg - degrees), 100 * abs(pose.ratio / ratio - 1)))
    return np.array(found)


def deformed(amplitude: float, noise: float, spacing: float) -> tuple[np.ndarray, int]:
    """Return what is left of a bend of ``amplitude`` LR px after the affine map and after B-splines, and how many.

    (FIELDS, 2) root mean squares, LR px, 8 px or more from the border; how many of the FIELDS were deformed at all.
    """
    image, shape = np.asarray(Image.open(SEM)).astype(np.float64), (300, 300)
    to_lr, left, number = fields.matrix(RATIO, 1.0), [], 0

    def bend(places: np.ndarray) -> np.ndarray:
        return fields.waves(places, amplitude * RATIO, WAVES_PX * RATIO)

    for seed in range(FIELDS):
        rng = np.random.default_rng(seed)
        corner, centre = rng.integers(30, 180, 2), fields.centre_at(rng.uniform(0.2, 0.8, 2), shape, to_lr, LR_SHAPE)
        lr = fields.acquired_lr(image, corner, shape, centre, to_lr, LR_SHAPE, bend)
        hr = image[corner[0] : corner[0] + 300, corner[1] : corner[1] + 300]
        lr, hr = (Memory(a + noise * rng.standard_normal(a.shape)) for a in (lr, hr))
        moving, field = Slice(hr, 0, 3), Field(lr, 0)
        affine = refine(moving, field, Pose.of(tuple(centre + 0.4), RATIO), [2, 1])
        _, found = deform(affine, moving, field, spacing)
        none = np.zeros((2, 100, 100))
        bent = found.field(slice(0, 100), slice(0, 100))
        number += bent is not None
        both = (none, none if bent is None else bent)
        off = [fields.off_by(affine.pose, one, shape, centre, to_lr, bend)[8:-8, 8:-8] for one in both]
        left.append([np.sqrt((one**2).mean()) for one in off])
    return np.array(left), number


def likeness(folder: Path) -> list[tuple[str, np.ndarray]]:
    """Return the NCC of repeat scans of one strip, and of scans of different strips, as training checks it."""
    pairs, _ = pairs_of(Source(hr=folder, pattern=("_A.png", "_B.png")), 3, 16, Path())
    strangers = [replace(p, reference=pairs[(n + 7) % len(pairs)].reference) for n, p in enumerate(pairs)]
    return [
        (name, np.array([_likeness(p, 3) for p in group]))
        for name, group in (("the same strip", pairs), ("another strip", strangers))
    ]


def main() -> None:
    print(f"{POSES} poses each; LR of {LR_SHAPE[0]}x{LR_SHAPE[1]} px, grey values with a standard deviation of 53")
    print("| HR field (HR px) | noise in both | shift error px, median / worst | turn, degrees | magnification, % |")
    print("|---|---|---|---|---|")
    for side, noise in ((300, 0), (300, 5), (300, 10), (300, 20), (200, 5), (150, 5)):
        found = errors(side, noise)
        cells = [f"{np.median(c):.3f} / {c.max():.3f}" for c in found.T]
        print(f"| {side}x{side} | {noise} | {' | '.join(cells)} |")
    print("| bend, px | noise | spacing, px | off after the affine map, px rms | after B-splines | deformed |")
    print("|---|---|---|---|---|---|")
    cases = [(1.3, 10, spacing) for spacing in (16, 24, 32, 48)]
    cases += [(amplitude, noise, 24) for amplitude in (0.3, 0) for noise in (0, 10)]
    for case in cases:
        left, number = deformed(*case)
        affine, bent = np.median(left, axis=0)
        print(f"| {' | '.join(map(str, case))} | {affine:.3f} | {bent:.3f} | {number} of {FIELDS} |")
    if folder := os.environ.get("EMSR_DATA"):
        print("| repeat scans, 48x48 LR px | least | median | 99th percentile | largest |")
        print("|---|---|---|---|---|")
        for name, values in likeness(Path(folder) / "mussel_repeat_scan_pairs"):
            row = (values.min(), np.median(values), np.percentile(values, 99), values.max())
            print(f"| {name} | {' | '.join(f'{v:.2f}' for v in row)} |")


if __name__ == "__main__":
    main()

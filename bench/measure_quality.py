"""Print, as Markdown, what models gain over bicubic interpolation on images they were not trained on.

Usage: EMSR_DATA=folder python bench/measure_quality.py [MODEL ...]

Every figure is a PSNR in dB after a least-squares affine fit of intensities, data range 255 grey levels, whole images.
LR is the 3x3 area mean. References: the next slice (FIB-SEM), the other scan (repeat scans), the image itself
(serial sections, spinal cord), which for these rewards keeping its noise.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from emsr_fast import available_models, load_model
from emsr_fast.engine import TorchEngine
from emsr_fast.metrics import psnr_after_affine_fit
from emsr_fast.report.demo import bicubic
from emsr_fast.train.degrade import reduce

SCALE = 3
FLAT_SIGMAS = (1, 2, 5, 10, 15, 20, 25)


def grey(path: Path) -> np.ndarray:
    """Return an image in grey levels of 255, float32, its sides cut to a multiple of the scale."""
    image = np.asarray(Image.open(path), dtype=np.float32)
    return image[: image.shape[0] // SCALE * SCALE, : image.shape[1] // SCALE * SCALE]


def validation_sets(data: Path) -> Iterator[tuple[str, list[tuple[np.ndarray, np.ndarray]]]]:
    """Yield the name and the (image to degrade, reference) pairs of each set, all held back in examples/weights."""
    fib = [grey(path) for path in sorted((data / "flyem_fibsem_10nm_block").glob("*.png"))[56:64]]
    yield "FIB-SEM, next slice", list(itertools.pairwise(fib))
    scans = data / "mussel_repeat_scan_pairs"
    ids = sorted((path.name[:-6] for path in scans.glob("*_A.png")), key=natural)[::5]
    pairs = [(grey(scans / f"{name}_A.png"), grey(scans / f"{name}_B.png")) for name in ids]
    yield "repeat scans, other scan", [*pairs, *((b, a) for a, b in pairs)]
    spinal = grey(sorted((data / "rat_spinal_sem_70-100nm").glob("*.png"), key=lambda p: natural(p.name))[0])
    yield "spinal cord SEM, itself", [(spinal, spinal)]
    for section in ("02", "04"):
        image = grey(data / "rat_ssem_8nm" / f"section_{section}.png")[3252:]
        yield f"serial section {section}, itself", [(image, image)]


def natural(name: str) -> list[tuple[int, int, str]]:
    """Return the key that training orders files by."""
    from emsr_fast.volume.formats.images import natural_key

    return natural_key(name)


def gains(engine: TorchEngine, pairs: list[tuple[np.ndarray, np.ndarray]], sigma: float) -> tuple[float, float]:
    """Return mean PSNR of bicubic interpolation and of the model, with LR noise of ``sigma`` grey levels."""
    rng = np.random.default_rng(0)
    figures = []
    for origin, reference in pairs:
        low = reduce(origin, SCALE) + np.float32(sigma) * rng.standard_normal(
            (origin.shape[0] // SCALE, origin.shape[1] // SCALE), dtype=np.float32
        )
        result = engine.run(low[None, None] / 255)[0, 0]
        figures.append([psnr_after_affine_fit(image, reference, 255) for image in (bicubic(low, SCALE), result)])
    interpolated, restored = np.mean(figures, axis=0)
    return float(interpolated), float(restored)


def flat_noise(engine: TorchEngine) -> list[float]:
    """Return the standard deviation, in grey levels, that is left of white noise of each of FLAT_SIGMAS on mid grey."""
    noise = np.random.default_rng(1).standard_normal((96, 96), dtype=np.float32)
    return [float(engine.run((128 + s * noise)[None, None] / 255)[0, 0].std() * 255) for s in FLAT_SIGMAS]


def main() -> None:
    data = Path(os.environ["EMSR_DATA"])
    engines = {name: TorchEngine(load_model(name, device="cpu")) for name in sys.argv[1:] or available_models()}
    sets = list(validation_sets(data))
    print("| validation set | images | LR noise | bicubic |", *(f" {name} |" for name in engines))
    print("|---|---|---|---|" + "---|" * len(engines))
    for title, pairs in sets:
        for sigma in (0, 10):
            cells, bicubic_db = [], 0.0
            for engine in engines.values():
                bicubic_db, restored = gains(engine, pairs, sigma)
                cells.append(f" {restored:.2f} ({restored - bicubic_db:+.2f}) |")
            print(f"| {title} | {len(pairs)} | {sigma} | {bicubic_db:.2f} |", *cells)
    same = np.mean([psnr_after_affine_fit(a, b, 255) for a, b in sets[0][1]])
    print(f"\nFIB-SEM: a slice itself, at full resolution with its noise, agrees with the next one to {same:.2f} dB.\n")
    print(
        "Pure noise on mid grey: standard deviation that comes out, grey levels (less than in: no invented texture)\n"
    )
    print("| noise in |", *(f" {sigma} |" for sigma in FLAT_SIGMAS))
    print("|---|" + "---|" * len(FLAT_SIGMAS))
    for name, engine in engines.items():
        print(f"| {name} |", *(f" {value:.2f} |" for value in flat_noise(engine)))


if __name__ == "__main__":
    main()

"""Calibrate a model's maps of trust, and print, as Markdown, how well they predict the true error.

Usage: EMSR_DATA=folder python bench/measure/trust.py [--write] [MODEL ...]

Images that training never saw are made coarse (3x3 area mean, white noise of 0 or 10 grey levels) and brought back;
the error is the difference from the image itself, its square less the variance of the image's own noise. What is
printed for a set uses coefficients fitted to the others; --write writes those fitted to all beside the weights.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emsr_fast import available_models, load_model
from emsr_fast.engine import TorchEngine
from emsr_fast.infer.fingerprint import of_model
from emsr_fast.metrics.noise import noise_of
from emsr_fast.model.zoo import model_path
from emsr_fast.train.degrade import reduce
from emsr_fast.trust import calibration
from emsr_fast.trust.calibration import Calibration, calibration_curve, calibration_path, spearman
from emsr_fast.trust.maps import Trust, box_mean
from quality import SCALE, validation_sets

SIDE = 384  # HR px of what is taken of an image
MOST_IMAGES = {"FIB-SEM": 2, "repeat": 8}  # of a set; others have one
NOISE = (0, 10)
_RESIDUAL_ALONE = Calibration(floor=0.0, gain_disagreement=0.0, gain_residual=1.0, model_sha256="")


@dataclass
class Pixels:
    """Every third pixel each way of a set's images, (N,); the model's range."""

    disagreement: np.ndarray
    residual: np.ndarray
    gradient: np.ndarray  # of the result: what a map that only knows edges would say
    error: np.ndarray
    squared_error: np.ndarray  # less the variance of the reference's noise
    nearby_error: np.ndarray  # root mean square over 9x9 px


def measured(engine: TorchEngine, images: list[np.ndarray], sigma: float) -> Pixels:
    """Return the pixels of ``images``, HR in [0, 1], made coarse, noisy by ``sigma`` grey levels, and brought back."""
    rng = np.random.default_rng(0)
    lows = []
    for image in images:
        low = reduce(image, SCALE)
        lows.append(low + np.float32(sigma / 255) * rng.standard_normal(low.shape, dtype=np.float32))
    noise, own = noise_of(lows, "LR"), noise_of(images, "HR")
    trust = Trust(noise.gain / 255, noise.offset / 255**2, _RESIDUAL_ALONE)

    def run(image: np.ndarray) -> np.ndarray:
        return engine.run(image[None, None])[0, 0]

    columns: list[list[np.ndarray]] = []
    for image, low in zip(images, lows, strict=True):
        result = run(low)
        whole = (slice(0, low.shape[0]), slice(0, low.shape[1]))
        maps = trust.maps(run, low, result, whole, (0, 0, 0), SCALE)
        error = result - image
        own_variance = own.gain / 255 * image + own.offset / 255**2
        steepness = np.sqrt(box_mean(sum(slope**2 for slope in np.gradient(result)).astype(np.float32), 4))
        nearby = np.sqrt(box_mean(error**2, 4))
        values = (maps["disagreement"], maps["error"], steepness, error, error**2 - own_variance, nearby)
        columns.append([value[1::3, 1::3].ravel() for value in values])
    return Pixels(*(np.concatenate(column) for column in zip(*columns, strict=True)))


def rms(values: np.ndarray) -> float:
    """Return the root mean square of ``values`` in grey levels of 255."""
    return 255 * float(np.sqrt((values**2).mean()))


def fitted(sets: list[Pixels]) -> tuple[float, float, float]:
    """Return floor and gains for ``sets``, each with the same weight."""
    count = min(len(pixels.error) for pixels in sets)
    chosen = [np.linspace(0, len(pixels.error) - 1, count).astype(int) for pixels in sets]
    columns = (
        np.concatenate([getattr(pixels, name)[index] for pixels, index in zip(sets, chosen, strict=True)])
        for name in ("disagreement", "residual", "squared_error")
    )
    return calibration.fit(*columns)


def print_sets(name: str, sets: dict[str, list[Pixels]]) -> None:
    """Print what is known of each set from the others, and the calibration curve of all sets, each from the others."""
    print(f"\n{name}: root mean square in grey levels of 255; rank correlation with the error nearby (9x9 px) and, in")
    print("brackets, with that of the single pixel\n")
    print("| validation set | LR noise | true error | expected | expected error | disagreement | residual | gradient |")
    print("|---|---|---|---|---|---|---|---|")
    everything: list[tuple[np.ndarray, np.ndarray]] = []
    for title, levels in sets.items():
        floor, by_disagreement, by_residual = fitted([p for other, ps in sets.items() if other != title for p in ps])
        known = Calibration(floor, by_disagreement, by_residual, "")
        for sigma, pixels in zip(NOISE, levels, strict=True):
            expected = known.error(pixels.disagreement, pixels.residual)
            everything.append((expected, pixels.squared_error))
            cells = (
                f"{spearman(values, pixels.nearby_error):.2f} ({spearman(values, np.abs(pixels.error)):.2f})"
                for values in (expected, pixels.disagreement, pixels.residual, pixels.gradient)
            )
            true = 255 * np.sqrt(max(0.0, float(pixels.squared_error.mean())))
            print(f"| {title} | {sigma} | {true:.1f} | {rms(expected):.1f} |", " | ".join(cells), "|")
    print(f"\n{name}: expected and true error, grey levels of 255, ten equal groups of pixels of all sets\n")
    curve = calibration_curve(*(np.concatenate(column) for column in zip(*everything, strict=True)))
    print("| expected |", *(f"{255 * expected:.1f} |" for expected, _, _ in curve))
    print("|---|" + "---|" * len(curve))
    print("| true |", *(f"{255 * true:.1f} |" for _, true, _ in curve))


def main() -> None:
    arguments = [argument for argument in sys.argv[1:] if argument != "--write"]
    data = Path(os.environ["EMSR_DATA"])
    for name in arguments or available_models():
        network = load_model(name, device="cpu")
        engine = TorchEngine(network)
        sets: dict[str, list[Pixels]] = {}
        for title, pairs in validation_sets(data):
            title = title.partition(",")[0]
            count = MOST_IMAGES.get(title.partition(" ")[0], 1)
            # as acquired: what is bent onto another scan has less noise than it had
            images = [pair[1][:SIDE, :SIDE] / np.float32(255) for pair in pairs[::2]]
            images = [images[at] for at in np.unique(np.linspace(0, len(images) - 1, count).astype(int))]
            sets[title] = [measured(engine, images, sigma) for sigma in NOISE]
        print_sets(name, sets)
        floor, by_disagreement, by_residual = fitted([pixels for levels in sets.values() for pixels in levels])
        print(f"\n{name}: floor {255 * np.sqrt(floor):.1f} grey levels, gains {by_disagreement:.3g}, {by_residual:.3g}")
        if "--write" in sys.argv:
            found = Calibration(
                floor,
                by_disagreement,
                by_residual,
                of_model(network).sha256,
                {"sets": list(sets), "lr_noise": list(NOISE), "scale": SCALE, "by": "bench/measure/trust.py"},
            )
            calibration.write_calibration(calibration_path(model_path(name)), found)


if __name__ == "__main__":
    main()

"""Print, as Markdown, what models gain over bicubic interpolation on images they were not trained on.

Usage: EMSR_DATA=folder python bench/measure/quality.py [MODEL | FOLDER of baselines/train_baselines.py ...]

Every figure is a PSNR in dB after a least-squares affine fit of intensities, data range 255 grey levels, whole images.
LR is the 3x3 area mean. References: the next slice (FIB-SEM), the other scan (repeat scans, drift taken out),
the image itself (the others), which for these rewards keeping its noise.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from emsr_fast import available_models, load_model
from emsr_fast.engine import TorchEngine
from emsr_fast.io.resize import bicubic
from emsr_fast.metrics import psnr_after_affine_fit
from emsr_fast.train.degrade import reduce
from emsr_fast.train.denoise import denoise_slice
from emsr_fast.train.drift import bent, drift_between

sys.path.insert(0, str(Path(__file__).parent / "baselines"))
import networks

Method = Callable[[np.ndarray], np.ndarray]  # LR in grey levels of 255, (H, W), to HR, (3H, 3W)

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
    # their drift against each other is nothing that a network could restore
    pairs = [(bent(a, drift_between(b, a)), b) for one in pairs for a, b in (one, one[::-1])]
    yield "repeat scans, other scan", pairs
    spinal = grey(sorted((data / "rat_spinal_sem_70-100nm").glob("*.png"), key=lambda p: natural(p.name))[0])
    yield "spinal cord SEM, itself", [(spinal, spinal)]
    for section in ("02", "04"):
        image = grey(data / "rat_ssem_8nm" / f"section_{section}.png")[3252:]
        yield f"serial section {section}, itself", [(image, image)]
    larva = [grey(path) for path in sorted((data / "vnc_larva_sstem_4.6nm").glob("*.png"))[::10]]
    yield "larva ssTEM, itself", [(image, image) for image in larva]


def natural(name: str) -> list[tuple[int, int, str]]:
    """Return the key that training orders files by."""
    from emsr_fast.io.readers.parts.image_names import natural_key

    return natural_key(name)


def nearest(low: np.ndarray) -> np.ndarray:
    """Return ``low`` enlarged by repeating its pixels."""
    return low.repeat(SCALE, axis=0).repeat(SCALE, axis=1)


def denoised_bicubic(low: np.ndarray) -> np.ndarray:
    """Return ``low``, in grey levels of 255, after non-local means of an estimated strength, enlarged bicubically."""
    return bicubic(denoise_slice(low / 255, "nlm") * 255, SCALE)


BASELINES: dict[str, Method] = {
    "nearest": nearest,
    "bicubic": lambda low: bicubic(low, SCALE),
    "denoised, bicubic": denoised_bicubic,
}


def method_of(engine: TorchEngine) -> Method:
    """Return the network behind ``engine`` as a method in grey levels of 255."""
    return lambda low: engine.run(low[None, None] / 255)[0, 0] * 255


def decibels(methods: Mapping[str, Method], pairs: list[tuple[np.ndarray, np.ndarray]], sigma: float) -> list[float]:
    """Return the mean PSNR of each of ``methods``, with LR noise of ``sigma`` grey levels, the same for all."""
    rng = np.random.default_rng(0)
    figures = []
    for origin, reference in pairs:
        low = reduce(origin, SCALE) + np.float32(sigma) * rng.standard_normal(
            (origin.shape[0] // SCALE, origin.shape[1] // SCALE), dtype=np.float32
        )
        figures.append([psnr_after_affine_fit(method(low), reference, 255) for method in methods.values()])
    return [float(mean) for mean in np.mean(figures, axis=0)]


def gains(engine: TorchEngine, pairs: list[tuple[np.ndarray, np.ndarray]], sigma: float) -> tuple[float, float]:
    """Return mean PSNR of bicubic interpolation and of the model, with LR noise of ``sigma`` grey levels."""
    interpolated, restored = decibels({"bicubic": BASELINES["bicubic"], "model": method_of(engine)}, pairs, sigma)
    return interpolated, restored


def engine_of(name: str) -> TorchEngine:
    """Return the engine of a shipped model, a model file, or a network that train_baselines.py trained."""
    if Path(name).parent.name in networks.BASELINES:
        return TorchEngine(networks.load_baseline(Path(name)))
    return TorchEngine(load_model(name, device="cpu"))


def flat_noise(engine: TorchEngine) -> list[float]:
    """Return the standard deviation, in grey levels, that is left of white noise of each of FLAT_SIGMAS on mid grey."""
    noise = np.random.default_rng(1).standard_normal((96, 96), dtype=np.float32)
    return [float(engine.run((128 + s * noise)[None, None] / 255)[0, 0].std() * 255) for s in FLAT_SIGMAS]


def asked() -> dict[str, TorchEngine]:
    """Return the engines that the command line names; a folder of train_baselines.py is all that it holds."""
    engines = {}
    for argument in sys.argv[1:] or available_models():
        files = sorted(Path(argument).glob("*/last.safetensors"))
        engines.update({path.parent.name: engine_of(str(path)) for path in files})
        if not files:
            engines[argument] = engine_of(argument)
    return engines


def main() -> None:
    data = Path(os.environ["EMSR_DATA"])
    engines = asked()
    methods = BASELINES | {name: method_of(engine) for name, engine in engines.items()}
    sets = list(validation_sets(data))
    print("| validation set | images | LR noise |", *(f" {name} |" for name in methods))
    print("|---|---|---|" + "---|" * len(methods))
    for title, pairs in sets:
        for sigma in (0, 10):
            found = dict(zip(methods, decibels(methods, pairs, sigma), strict=True))
            cells = [
                f" {value:.2f} |" if name == "bicubic" else f" {value:.2f} ({value - found['bicubic']:+.2f}) |"
                for name, value in found.items()
            ]
            print(f"| {title} | {len(pairs)} | {sigma} |", *cells, flush=True)
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

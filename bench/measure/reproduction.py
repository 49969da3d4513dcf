"""Try the paper's claims at a small budget: references, losses, the third term; print a Markdown table.

Usage: EMSR_DATA=folder python bench/measure/reproduction.py [RESULTS.json]

Data: the repeat scans, whose two images of one strip have independent noise. "real" makes LR from scan A and refers to
noisy scan B, so that LR and reference share no noise; "denoised" refers to a denoised B; "synthetic" makes LR from the
noisy B that it refers to. All are judged alike: LR from A of held-back strips against B, which no training saw.
Runs that RESULTS.json holds already are not run again.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emsr_fast.io.resize import bicubic
from emsr_fast.metrics import psnr_after_affine_fit
from emsr_fast.model import Emsr, load_model
from emsr_fast.train import TrainConfig, train
from emsr_fast.train.config import Source
from emsr_fast.train.dataset import as_tensor
from emsr_fast.train.degrade import reduce
from emsr_fast.train.pairs import pairs_of

STEPS, CROP, BATCH, SEEDS = 300, 24, 8, (0, 1, 2)
REFERENCES: dict[str, dict[str, Any]] = {
    "real": {"pattern": ("_A.png", "_B.png")},
    "denoised": {"pattern": ("_A.png", "_B.png"), "denoiser": "nlm"},
    "synthetic": {"pattern": ("_B.png", "_B.png")},
}
LOSSES = ("l1", "l2")
THIRD_TERM = {"with": (1.0, 1.0, 1.0), "without": (1.0, 1.0, 0.0)}


def settings(data: Path, output: Path, reference: str, loss: str, third: str, seed: int) -> TrainConfig:
    """Return the settings of one run."""
    source = {"hr": data / "mussel_repeat_scan_pairs", "validation_every": 5, **REFERENCES[reference]}
    return TrainConfig.model_validate(
        {
            "output": output,
            "model": {"features": 16, "blocks": 1, "heads": 4},
            "sources": [source],
            "crop": CROP,
            "batch": BATCH,
            "steps": STEPS,
            "seed": seed,
            "loss": {"kind": loss, "weights": THIRD_TERM[third]},
            "optimiser": {"kind": "adamw", "rate": 2e-3, "schedule": "cosine", "warm_up": 30, "clip": 0.5},
            "validate_every": STEPS,
            "checkpoint_every": STEPS,
        }
    )


def judge(network: Emsr, data: Path) -> tuple[float, float]:
    """Return mean PSNR of the network and of bicubic interpolation, LR from A against B of the strips held back."""
    source = Source(hr=data / "mussel_repeat_scan_pairs", pattern=("_A.png", "_B.png"), validation_every=5)
    figures = []
    for pair in pairs_of(source, 3, CROP, Path())[1]:
        whole = (slice(0, 144), slice(0, 144))
        low, reference = reduce(pair.origin.crop(0, *whole), 3), pair.reference.crop(0, *whole)
        with torch.no_grad():
            result = network(as_tensor(low)[None])[0, 0].numpy()
        figures.append([psnr_after_affine_fit(image, reference, 1.0) for image in (result, bicubic(low, 3))])
    restored, interpolated = np.mean(figures, axis=0)
    return float(restored), float(interpolated)


def table(results: dict[str, dict[str, float]]) -> str:
    """Return mean and standard deviation of the gain over the seeds, as Markdown."""
    lines = ["| reference | loss | third term | gain over bicubic, dB (mean +- SD of 3 seeds) |", "|---|---|---|---|"]
    for reference, loss, third in itertools.product(REFERENCES, LOSSES, THIRD_TERM):
        gains = [results[f"{reference} {loss} {third} {seed}"]["gain_db"] for seed in SEEDS]
        lines.append(f"| {reference} | {loss} | {third} | {np.mean(gains):+.3f} +- {np.std(gains, ddof=1):.3f} |")
    return "\n".join(lines)


def main() -> None:
    data = Path(os.environ["EMSR_DATA"])
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "reproduction.json")
    results = json.loads(path.read_text()) if path.exists() else {}
    # seeds outermost: what is there after an interruption is comparable
    for seed, reference, loss, third in itertools.product(SEEDS, REFERENCES, LOSSES, THIRD_TERM):
        name = f"{reference} {loss} {third} {seed}"
        if name in results:
            continue
        with tempfile.TemporaryDirectory() as folder:
            outcome = train(settings(data, Path(folder), reference, loss, third, seed), say=lambda line: None)
            restored, interpolated = judge(load_model(outcome.model), data)
        results[name] = {"psnr_db": restored, "gain_db": restored - interpolated, "seconds": outcome.seconds}
        path.write_text(json.dumps(results, indent=1))
        print(f"{name}: {restored - interpolated:+.3f} dB in {outcome.seconds:.0f} s", file=sys.stderr, flush=True)
    print(table(results))


if __name__ == "__main__":
    main()

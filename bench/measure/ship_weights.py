"""Put a trained model into the package: float16, with a card that says what it is and what was measured.

Usage: EMSR_DATA=folder python bench/measure/ship_weights.py RUN_FOLDER
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import yaml

from emsr_fast import ModelCard, load_model, save_model
from emsr_fast.engine import TorchEngine
from emsr_fast.train.start import lineage
from quality import FLAT_SIGMAS, flat_noise, gains, validation_sets

PACKAGE = Path(__file__).parents[2] / "emsr_fast" / "weights"
FACTS = Path(__file__).parents[2] / "bench" / "measure" / "model_cards.yaml"


def main() -> None:
    run, data = Path(sys.argv[1]), Path(os.environ["EMSR_DATA"])
    model = load_model(run / "last.safetensors", device="cpu")
    name = model.card.name
    facts = yaml.safe_load(FACTS.read_text())
    # as shipped: what float16 costs is in the figures
    path = PACKAGE / f"{name}.safetensors"
    save_model(model, path, dtype=torch.float16)
    model = load_model(path, device="cpu")
    engine = TorchEngine(model)
    decibels = {}
    for title, pairs in validation_sets(data):
        for sigma in (0, 10):
            interpolated, restored = gains(engine, pairs, sigma)
            decibels[f"{title}, LR noise {sigma}"] = round(restored - interpolated, 2)
    out = {f"sigma {sigma}": round(value, 2) for sigma, value in zip(FLAT_SIGMAS, flat_noise(engine), strict=True)}
    described = facts[name]["description"].format(hours=hours(model.card))
    model.card = ModelCard.model_validate(
        {
            **model.card.model_dump(),
            **facts["all"],
            **facts[name],
            "description": described,
            "training": {**model.card.training, **facts["training"]},
            "metrics": {
                "psnr_gain_over_bicubic_db": decibels,
                "how": "images held back, whole, after a least-squares affine fit, data range 255",
                "deviation_left_of_pure_noise": out,
            },
        }
    )
    save_model(model, path, dtype=torch.float16)
    print(model.card.describe())


def hours(card: ModelCard) -> str:
    """Return for how long the model and those it came from were trained, such as "3.4"."""
    seconds = [stage.get("seconds", 0) for stage in lineage(card)]
    return f"{sum(seconds) / 3600:.1f}"


if __name__ == "__main__":
    main()

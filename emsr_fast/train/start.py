"""What a run starts from: a new network, or another model, grown if need be; and the card of what it makes."""

from __future__ import annotations

import platform

import torch

from emsr_fast.model import Emsr, ModelCard, load_model
from emsr_fast.train.config import TrainConfig
from emsr_fast.train.grow import grown


def first_network(config: TrainConfig) -> Emsr:
    """Return the network of step 0: new, or another run's, grown if the settings name a larger architecture."""
    if config.start_from is None:
        return Emsr(config.architecture)
    before = load_model(config.start_from, device="cpu")
    if not config.model or config.architecture == before.config:
        return before
    return grown(before, config.architecture, torch.Generator().manual_seed(config.seed))


def card_of(network: Emsr, config: TrainConfig) -> ModelCard:
    """Return the card of the run's model; a parent's data and credits stay with what comes from it."""
    before = network.card if config.start_from else None
    training = {
        "hardware": platform.processor() or platform.machine(),
        "loss": config.loss.model_dump(mode="json"),
        "optimiser": config.optimiser.model_dump(mode="json"),
        "precision": config.precision,
        "seed": config.seed,
        "crop": config.crop,
        "batch": config.batch,
        "sources": [source.model_dump(mode="json", exclude_defaults=True) for source in config.sources],
    }
    if before is not None:
        training["started_from"] = {"name": before.name, "training": before.training}
    return ModelCard.for_config(
        network.config,
        name=config.name,
        training=training,
        attribution=before.attribution if before else [],
        licence=before.licence if before else "unknown",
    )

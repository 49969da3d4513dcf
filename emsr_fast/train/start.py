"""The start of a run: a new network or another model, grown if need be; and the model card of the result."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch

from emsr_fast.errors import UsageError
from emsr_fast.model import Emsr, EmsrConfig, ModelCard, load_model
from emsr_fast.train.config import TrainConfig
from emsr_fast.train.grow import grown
from emsr_fast.wording import counted


def first_network(config: TrainConfig, say: Callable[[str], None] = lambda line: None) -> Emsr:
    """Return the network of step 0: new, or another model, grown where the settings name a larger architecture.

    Where the settings leave the architecture open, it is that of the model to start from.
    """
    if config.start_from is None:
        return Emsr(config.architecture)
    before = load_model(config.start_from, device="cpu")
    try:
        wanted = EmsrConfig(**{**asdict(before.config), **config.model})
    except ValueError as error:
        raise UsageError(f"model {config.model} does not fit {config.start_from}: {error}") from error
    if wanted == before.config:
        say(f"start   {before.card.name}, at its own size: {_size(before)}")
        return before
    larger = grown(before, wanted, torch.Generator().manual_seed(config.seed))
    say(f"start   {before.card.name}: {_size(before)}; grown, as model says, to {_size(larger)}")
    return larger


def _size(network: Emsr) -> str:
    c, parameters = network.config, sum(p.numel() for p in network.parameters())
    return f"{c.features} features, {counted(c.blocks, 'block')}, {parameters:,} parameters"


def card_of(network: Emsr, config: TrainConfig) -> ModelCard:
    """Return the card of the run's model; it keeps the data and credits of the model it started from."""
    before = network.card if config.start_from else None
    training = {
        "hardware": platform.processor() or platform.machine(),
        "loss": config.loss.model_dump(mode="json"),
        "optimiser": config.optimiser.model_dump(mode="json"),
        "precision": config.precision,
        "seed": config.seed,
        "crop": config.crop,
        "batch": config.batch,
        **config.model_dump(mode="json", include={"extra_lr_sigma", "contrast", "gamma", "inversion", "plain"}),
        # names alone: where the files lie on this machine is nobody's business who gets the model
        "sources": [_named(source.model_dump(exclude_defaults=True)) for source in config.sources],
    }
    if before is not None:
        training["started_from"] = lineage(before)
    return ModelCard.for_config(
        network.config,
        name=config.name,
        training=training,
        attribution=before.attribution if before else [],
        licence=before.licence if before else "unknown",
    )


def lineage(card: ModelCard) -> list[dict[str, Any]]:
    """Return name and training of a model and of those it came from, the latest first.

    Cards of earlier versions had the earlier model inside the later one.
    """
    found = [{"name": card.name, **card.training}]
    before = found[0].pop("started_from", [])
    while isinstance(before, dict):
        training = before.get("training")
        found.append({"name": before.get("name"), **(training if isinstance(training, dict) else {})})
        before = found[-1].pop("started_from", [])
    earlier = before if isinstance(before, list) else []
    return [_named(one) for one in [*found, *earlier] if isinstance(one, dict)]


def _named(settings: dict[str, Any]) -> dict[str, Any]:
    """Return ``settings`` as JSON values, of every path the name alone."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return _named(value)
        if isinstance(value, tuple | list):
            return [plain(one) for one in value]
        if isinstance(value, Path) or (isinstance(value, str) and _is_absolute(value)):
            return PureWindowsPath(value).name
        return value

    return {name: plain(value) for name, value in settings.items()}


def _is_absolute(text: str) -> bool:
    return PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()

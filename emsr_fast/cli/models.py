"""The command that lists the models of the package: models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from emsr_fast.cli.common import Json, print_json
from emsr_fast.cli.output import put
from emsr_fast.wording import sizes

if TYPE_CHECKING:
    from emsr_fast.model.card import ModelCard


def models(
    full: Annotated[
        bool,
        typer.Option("--full", help="Print all that is known: training, figures, limits, licence and credits."),
    ] = False,
    as_json: Json = False,
) -> None:
    """List the models that come with the package.

    The default model is first.
    """
    from emsr_fast.model import DEFAULT_MODEL, available_models, read_card

    names = sorted(available_models(), key=lambda name: name != DEFAULT_MODEL)
    cards = [read_card(name) for name in names]
    if as_json:
        print_json({"models": [card.model_dump() for card in cards], "default": DEFAULT_MODEL})
    elif full:
        put(*"\n\n".join(card.describe(is_default=card.name == DEFAULT_MODEL) for card in cards).splitlines())
    else:
        put(*models_table(cards, DEFAULT_MODEL).splitlines())


def models_table(cards: Sequence[ModelCard], default: str) -> str:
    """Return a row for each of ``cards``, models of the package, and below it what the model is.

    Args:
        cards: in the order of the rows.
        default: name of the default model.
    """
    rows = [("model", "parameters", "input pixels, nm", "gain over bicubic"), *(_row(card, default) for card in cards)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    body = [f"{line}\n    {card.description}" for line, card in zip(lines[1:], cards, strict=True)]
    # what speaks against the others helps to choose
    body = [
        f"{text}\n    {card.limits[0]}" if card.name != default and card.limits else text
        for text, card in zip(body, cards, strict=True)
    ]
    return "\n".join([lines[0], *body, "", "figures, limits, licence and credits: emsr-fast models --full"])


def _row(card: ModelCard, default: str) -> tuple[str, str, str, str]:
    from emsr_fast.model.zoo import count_parameters

    gains = card.metrics.get("psnr_gain_over_bicubic_db", {}).values()
    return (
        f"{card.name} (default)" if card.name == default else card.name,
        f"{count_parameters(card.name):,}",
        sizes(card.lr_pixel_nm) or "not stated",
        f"{min(gains):.1f} to {max(gains):.1f} dB" if gains else "not measured",
    )

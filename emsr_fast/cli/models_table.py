"""The table that `emsr-fast models` prints."""

from __future__ import annotations

from collections.abc import Sequence

from emsr_fast.model.card import ModelCard
from emsr_fast.model.zoo import count_parameters


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
    return "\n".join([lines[0], *body, "", "figures, limits, licence and credits: emsr-fast models --full"])


def _row(card: ModelCard, default: str) -> tuple[str, str, str, str]:
    gains = card.metrics.get("psnr_gain_over_bicubic_db", {}).values()
    return (
        f"{card.name} (default)" if card.name == default else card.name,
        f"{count_parameters(card.name):,}",
        ", ".join(f"{size:g}" for size in card.lr_pixel_nm) or "not stated",
        f"{min(gains):.1f} to {max(gains):.1f} dB" if gains else "not measured",
    )

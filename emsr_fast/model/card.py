"""What a model file says about itself."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from emsr_fast.model.config import EmsrConfig


class ModelCard(BaseModel):
    """Everything but the weights: stored as JSON in the metadata of a model file."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    format_version: Literal[1] = 1
    name: str = "unnamed"
    description: str = ""
    architecture: dict[str, Any]  # the fields of EmsrConfig
    normalisation: Literal["dtype_range", "percentile"] = "dtype_range"  # what [0, 1] meant in training
    hr_pixel_nm: list[float] = Field(default_factory=list)  # HR pixel sizes it was trained on
    lr_pixel_nm: list[float] = Field(default_factory=list)
    training: dict[str, Any] = Field(default_factory=dict)  # hardware, steps, data, loss
    metrics: dict[str, Any] = Field(default_factory=dict)  # what was measured, and on what
    limits: list[str] = Field(default_factory=list)  # what it is known to do badly
    licence: str = "unknown"
    attribution: list[str] = Field(default_factory=list)

    @property
    def config(self) -> EmsrConfig:
        """The architecture as a value; raises TypeError or ValueError if it is none."""
        return EmsrConfig(**self.architecture)

    @classmethod
    def for_config(cls, config: EmsrConfig, **fields: Any) -> ModelCard:
        """Return a card for ``config`` with ``fields`` filled in."""
        return cls(architecture=asdict(config), **fields)

    def describe(self, *, is_default: bool = False) -> str:
        """Return the card in words, one line for each thing."""
        lines = [f"{self.name} (default)" if is_default else self.name]
        for title, value in self.model_dump(exclude={"name", "format_version"}).items():
            if value in ("", [], {}):
                continue
            # sentences get a line each, numbers share one
            rows = value if isinstance(value, list) and isinstance(value[0], str) else [_in_words(value)]
            heads = [title.replace("_", " "), *[""] * (len(rows) - 1)]
            lines += [f"  {head:<14}{row}" for head, row in zip(heads, rows, strict=True)]
        return "\n".join(lines)


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name.replace('_', ' ')}: {_in_words(inner)}" for name, inner in value.items())
    return ", ".join(_in_words(inner) for inner in value) if isinstance(value, list) else str(value)

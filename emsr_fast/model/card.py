"""The card of a model: what its file states about it."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, ValidationError, field_validator
from safetensors import safe_open

from emsr_fast.errors import CheckpointError
from emsr_fast.model.config import INPUT_BOUNDS, EmsrConfig
from emsr_fast.reading import parse_json
from emsr_fast.wording import quoted, shortened, sizes

CARD_KEY = "emsr_card"


def _size_or_range(value: Any) -> float | tuple[float, float]:
    ends = value if isinstance(value, list | tuple) else (value, value)
    numbers = [float(end) for end in ends if isinstance(end, int | float) and 0 < end < math.inf]
    if len(ends) != 2 or len(numbers) != 2 or numbers[0] > numbers[1]:
        raise ValueError("must be a size above 0, or the least and the most of a range")
    return (numbers[0], numbers[1]) if isinstance(value, list | tuple) else numbers[0]


# nm: a size, or the least and the most of a range of sizes, each of which counts
PixelSizes = Annotated[
    float | tuple[float, float],
    PlainValidator(_size_or_range),
    PlainSerializer(lambda value: value),  # pydantic's own warns of a pair
]

_LONGEST = 200  # characters of what is wrong with a card
_WIDTH = 100  # characters of a line of a description, where it can be helped


class ModelCard(BaseModel):
    """Everything in a model file but the weights; stored as JSON in its metadata."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    format_version: Literal[1, 2] = 2  # 1 knew single pixel sizes only
    name: str = Field("unnamed", max_length=255)
    description: str = ""
    architecture: dict[str, Any]  # the fields of EmsrConfig
    normalisation: Literal["dtype_range", "percentile"] = "dtype_range"  # what [0, 1] meant in training
    # least and most that it is given, in units of [0, 1]; what is beyond becomes the nearer one
    input_bounds: tuple[float, float] = INPUT_BOUNDS
    hr_pixel_nm: list[PixelSizes] = Field(default_factory=list)  # HR pixel sizes it was trained on
    lr_pixel_nm: list[PixelSizes] = Field(default_factory=list)
    training: dict[str, Any] = Field(default_factory=dict)  # hardware, steps, data, loss
    metrics: dict[str, Any] = Field(default_factory=dict)  # what was measured, and on what
    limits: list[str] = Field(default_factory=list)  # what it is known to do badly
    licence: str = "unknown"
    attribution: list[str] = Field(default_factory=list)

    @field_validator("input_bounds")
    @classmethod
    def _around_the_range(cls, bounds: tuple[float, float]) -> tuple[float, float]:
        least, most = bounds
        if not (-math.inf < least <= 0 and 1 <= most < math.inf):
            raise ValueError(f"input_bounds must reach from 0 or less to 1 or more, got {least:g} .. {most:g}")
        return bounds

    @property
    def config(self) -> EmsrConfig:
        """The architecture as a value; raises TypeError or ValueError if it is not valid."""
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
            rows = [sizes(value)] if title in ("hr_pixel_nm", "lr_pixel_nm") else _in_rows(value)
            heads = [title.replace("_", " "), *[""] * (len(rows) - 1)]
            lines += [f"  {head:<14}{row}" for head, row in zip(heads, rows, strict=True)]
        return "\n".join(lines)


def _in_rows(value: Any) -> list[str]:
    """Return a value as lines: one for each sentence, short values share one."""
    if isinstance(value, list) and isinstance(value[0], str):
        return list(dict.fromkeys(value))
    if isinstance(value, list) and isinstance(value[0], dict):
        return [row for one in value for row in _in_rows(one)]
    words = _in_words(value)
    if len(words) <= _WIDTH or not isinstance(value, dict):
        return [words]
    rows = []
    for name, inner in value.items():
        below, head = _in_rows(inner) if inner else [str(inner)], name.replace("_", " ")
        rows += [f"{head}: {below[0]}"] if len(below) == 1 else [f"{head}:", *(f"  {row}" for row in below)]
    return rows


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name.replace('_', ' ')}: {_in_words(inner)}" for name, inner in value.items())
    return ", ".join(_in_words(inner) for inner in value) if isinstance(value, list | tuple) else str(value)


def read_own_card(path: Path) -> ModelCard:
    """Return the card of a file of ``save_model``, without its weights."""
    with safe_open(path, framework="np") as file:
        return parse_card((file.metadata() or {}).get(CARD_KEY, ""), path)


def parse_card(text: str, path: Path) -> ModelCard:
    """Return the card in ``text``, from the metadata of the model file ``path``.

    Raises:
        CheckpointError: it is not valid; it says which field is wrong.
    """
    try:
        version = parse_json(text).get("format_version")
        if isinstance(version, int) and version > ModelCard.model_fields["format_version"].default:
            raise CheckpointError(
                f"model {str(path)!r} has format version {shortened(str(version))}: update emsr_fast to read it"
            )
        card = ModelCard.model_validate_json(text)
        card.config  # noqa: B018  raises if the architecture is none
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise CheckpointError(
            f"the card of model {str(path)!r} is wrong at {quoted(field)}: {shortened(first['msg'], _LONGEST)}"
        ) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"the card of model {str(path)!r} cannot be read: {shortened(str(error), _LONGEST)}"
        ) from error
    return card

"""The sizes of batches that a graph or an engine takes."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from emsr_fast.errors import UsageError
from emsr_fast.wording import quoted

Size = tuple[int, int, int]  # batch, rows, columns in LR pixels

_MOST = 16384  # px; far beyond what fits a GPU, so that a slip of the keyboard is seen


@dataclass(frozen=True)
class Shapes:
    """Batches of ``least`` to ``most`` (batch, rows, columns), tuned for ``best``.

    Raises:
        UsageError: a size is out of range, or least, best and most are not in this order.
    """

    least: Size
    best: Size
    most: Size

    def __post_init__(self) -> None:
        for axis, sizes in zip(
            ("batch", "height", "width"), zip(self.least, self.best, self.most, strict=True), strict=True
        ):
            if not 1 <= sizes[0] <= sizes[1] <= sizes[2] <= _MOST:
                raise UsageError(
                    f"{axis} is {sizes[0]} at least, {sizes[1]} at best and {sizes[2]} at most; "
                    f"give numbers from 1 to {_MOST} in this order"
                )

    @classmethod
    def only(cls, batch: int, rows: int, cols: int) -> Shapes:
        """Return the shapes of an engine that takes one size only."""
        return cls(*((batch, rows, cols),) * 3)

    @property
    def fixed(self) -> bool:
        """Whether there is one size only."""
        return self.least == self.most

    def holds(self, batch: int, rows: int, cols: int) -> bool:
        """Return whether a batch of this size is within these shapes."""
        sizes = zip(self.least, (batch, rows, cols), self.most, strict=True)
        return all(low <= size <= high for low, size, high in sizes)

    def __str__(self) -> str:
        if self.fixed:
            return _written(self.best)
        return f"{_written(self.least)} to {_written(self.most)}, best {_written(self.best)}"

    def as_json(self) -> dict[str, Any]:
        """Return the sizes as JSON values."""
        return {name: list(size) for name, size in asdict(self).items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Shapes:
        """Return what ``as_json`` described."""
        return cls(**{name: (size[0], size[1], size[2]) for name, size in values.items()})


def _written(size: Size) -> str:
    batch, rows, cols = size
    return f"{rows}x{cols}" if batch == 1 else f"{batch} of {rows}x{cols}"


def parse_size(text: str, name: str) -> tuple[int, int]:
    """Return rows and columns of "HxW"; ``name`` is the setting, for the message.

    Raises:
        UsageError: it is no size.
    """
    found = re.fullmatch(r"([0-9]{1,6})[xX]([0-9]{1,6})", text)
    if not found:
        raise UsageError(f"{name} is {quoted(text)}; give rows x columns in input pixels, as in 320x320")
    return int(found[1]), int(found[2])

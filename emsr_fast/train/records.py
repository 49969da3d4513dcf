"""The log of a run: CSV files, and TensorBoard if asked for."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from emsr_fast.errors import VolumeError


class Records:
    """Tables of numbers in ``folder``, one row for each step."""

    def __init__(self, folder: Path, *, tensorboard: bool) -> None:
        self._folder, self._tensorboard = folder, tensorboard
        self._writer: Any = None

    def add(self, table: str, row: dict[str, Any]) -> None:
        """Append ``row`` to ``table``.csv; its key "step" is the abscissa of the curves.

        Raises:
            VolumeError: the file cannot be written.
        """
        path = self._folder / f"{table}.csv"
        new = not path.exists()
        try:
            with path.open("a", newline="") as file:
                writer = csv.DictWriter(file, list(row))
                if new:
                    writer.writeheader()
                writer.writerow(row)
        except OSError as error:
            raise VolumeError(f"{path} cannot be written: {error.strerror}; free space and use `resume`") from error
        if self._tensorboard:
            self._draw(table, row)

    def _draw(self, table: str, row: dict[str, Any]) -> None:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder / "tensorboard"))
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(f"{table}/{name}", value, row["step"])

"""The log of a run: CSV files, and TensorBoard if asked for."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emsr_fast.errors import VolumeError
from emsr_fast.publish import write_file


class Records:
    """Tables of numbers in ``folder``, one row for each step."""

    def __init__(self, folder: Path, *, tensorboard: bool) -> None:
        self._folder, self._tensorboard = folder, tensorboard
        self._writer: Any = None

    def add(self, table: str, row: dict[str, Any]) -> None:
        """Append ``row``, whose first key is "step", to ``table``.csv.

        Raises:
            VolumeError: the file cannot be written.
        """
        path = self._path(table)
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

    def go_on_from(self, step: int, validations: Sequence[Mapping[str, float]]) -> None:
        """Remove the rows of what a killed process did after its last checkpoint: it is done again.

        Args:
            step: the checkpoint's.
            validations: until then, each with its "step".

        Raises:
            VolumeError: a file cannot be written.
        """
        for table, last in (("log", step), ("validation", validations[-1]["step"] if validations else 0)):
            try:
                self._cut(table, last)
            except OSError as error:
                raise VolumeError(f"{self._path(table)} cannot be written: {error.strerror}") from error

    def _cut(self, table: str, step: float) -> None:
        path = self._path(table)
        if not path.exists():
            return
        # a kill may have cut the last row short
        head, *rows = path.read_bytes().splitlines(keepends=True) or [b""]
        kept = [row for row in rows if row.endswith(b"\n") and float(row.partition(b",")[0]) <= step]
        if kept:
            write_file(path.resolve(), b"".join([head, *kept]))
        else:
            path.unlink()

    def _path(self, table: str) -> Path:
        return self._folder / f"{table}.csv"

    def _draw(self, table: str, row: dict[str, Any]) -> None:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder / "tensorboard"))
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(f"{table}/{name}", value, row["step"])

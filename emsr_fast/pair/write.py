"""A pair set on the disk: a folder that appears when it is complete, ready to train on."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from emsr_fast.io.destination import check_output, system_errors
from emsr_fast.io.locations import within
from emsr_fast.io.registry import create_target
from emsr_fast.io.volume import TargetSpec, TargetVolume
from emsr_fast.publish import Staging

TABLE, REJECTED, SETTINGS, CONFIG, SHEET = "pairs.csv", "rejected.csv", "pair.json", "train.yaml", "preview.png"
# of the training that is written down
_CROP_PX, _MINUTES = 32, 30
_STARTS, _SMALL = (
    {3: "emsr-x3-small"},
    "features: 32, blocks: 2, heads: 8",
)  # for other scales none comes with the package


def check_folder(folder: str | Path, inputs: Iterable[Path], *, overwrite: bool) -> Path:
    """Return the absolute path of the pair set, after checking that it may be written.

    Raises:
        UsageError, VolumeError: see ``check_output``.
    """
    containers = [within(given)[0] for given in inputs]
    return check_output(folder, "a pair set", _is_pair_set, overwrite=overwrite, inputs=containers, folder=True)


def _is_pair_set(path: Path) -> bool:
    return (path / TABLE).is_file() and (path / SETTINGS).is_file()


@contextmanager
def staged(final: Path, inputs: Sequence[Path], *, overwrite: bool) -> Iterator[Path]:
    """Yield a hidden folder beside ``final``. It takes that name if the block succeeds, and is removed otherwise."""
    check = partial(check_folder, inputs=inputs, overwrite=overwrite)
    with system_errors(final), Staging(final, check, folder=True) as folder:
        yield folder


class Images:
    """The images of a pair set: two folders with a TIFF for each slice, or two OME-Zarr stacks."""

    def __init__(
        self, folder: Path, kind: str, voxels: dict[str, tuple[float | None, float | None, float | None]], about: dict
    ) -> None:
        self._folder, self._kind, self._voxels, self._about = folder, kind, voxels, about
        self._stacks: dict[str, TargetVolume] = {}
        if kind == "tif":
            for side in voxels:
                (folder / side).mkdir()

    def reserve(self, shapes: dict[str, tuple[int, int, int]]) -> None:
        """Make the empty stacks, (Z, Y, X) of each side; does nothing for folders."""
        if self._kind == "zarr":
            self._stacks = {side: self._target(f"{side}.ome.zarr", side, shape) for side, shape in shapes.items()}

    def write(self, number: int, z: int, images: dict[str, np.ndarray]) -> dict[str, str]:
        """Write one slice of each side; return their paths relative to the folder.

        Args:
            number: of this pair, counted from 0; z: its HR slice, which names the file.
        """
        names = {}
        for side, image in images.items():
            block = (slice(0, image.shape[0]), slice(0, image.shape[1]), np.ascontiguousarray(image, dtype=np.float32))
            if self._kind == "zarr":
                names[side] = f"{side}.ome.zarr"
                self._stacks[side].write(number, *block)
            else:
                names[side] = f"{side}/slice_{z:05d}.tif"
                with self._target(names[side], side, (1, *image.shape)) as target:
                    target.write(0, *block)
                    target.commit()
        return names

    def close(self) -> None:
        """Finish the stacks."""
        for stack in self._stacks.values():
            stack.commit()

    def abort(self) -> None:
        """Discard the stacks; harmless after ``close``."""
        for stack in self._stacks.values():
            stack.abort()

    def _target(self, name: str, side: str, shape: tuple[int, int, int]) -> TargetVolume:
        spec = TargetSpec(
            shape, np.dtype(np.float32), scale=1, voxel_size_nm=self._voxels[side], provenance=self._about
        )
        return create_target(self._folder / name, spec)


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write ``rows`` as CSV, floats with 6 digits; the columns are those of the first row."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})


def write_settings(path: Path, values: dict[str, Any]) -> None:
    """Write ``values`` as JSON."""
    path.write_text(json.dumps(values, indent=2, default=str) + "\n", encoding="utf-8")


def write_config(path: Path, kind: str, intensity_range: str, scale: int, shape: tuple[int, int]) -> None:
    """Write settings with which ``emsr-fast train`` runs on this pair set, for some minutes.

    Args:
        intensity_range: "LO:HI" in the grey values of both sides.
        shape: the smallest height and width of the LR images, px.
    """
    data = ["lr: LR.ome.zarr", "hr: HR.ome.zarr", "volume: true"] if kind == "zarr" else [f"pairs: {TABLE}"]
    # room for a crop among the rows to train on and, where rows are held back, another one among those
    crop = min(_CROP_PX, shape[0] // 8 * 4, shape[1] // 4 * 4)
    lines = [
        "# Written by emsr-fast pair. The option init of emsr-fast train writes a file with every setting explained.",
        "output: run",
        f"start_from: {_STARTS[scale]}" if scale in _STARTS else f"model: {{scale: {scale}, {_SMALL}}}",
        "sources:",
        "  - strategy: real",
        *(f"    {line}" for line in data),
        f'    intensity_range: "{intensity_range}"',
        "    validation_share: 0.1  # held back",
        f"crop: {crop}",
        "batch: 4",
        f"minutes: {_MINUTES}",
        "extra_lr_sigma: [0, 0]  # LR has its own noise",
        "loss: {weights: [1, 0, 0]}",
        "optimiser: {rate: 1.0e-4, schedule: cosine}",
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")

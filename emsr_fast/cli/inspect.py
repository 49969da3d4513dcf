"""The command that describes a volume: inspect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emsr_fast.cli.common import Axes, Channel, Json, KeepDataBar, Key, Raw, key_of, print_json, typed
from emsr_fast.cli.output import put


def inspect(
    context: typer.Context,
    path: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="TIFF stack, PNG or JPEG image, folder of these, Zarr, HDF5, MATLAB, MRC, CZI, ND2, NIfTI, NRRD, "
            "WEBKNOSSOS, files of microscopes (docs/formats.md), N5 or Neuroglancer precomputed. The last two and "
            "Zarr may be an s3, gs or http URL.",
        ),
    ],
    key: Key = None,
    raw: Raw = None,
    axes: Axes = None,
    channel: Channel = None,
    keep_data_bar: KeepDataBar = False,
    as_json: Json = False,
) -> None:
    """Describe a volume.

    Prints its shape, dtype and axes, and its voxel size with where that is stated.
    """
    from emsr_fast.io.registry import open_source
    from emsr_fast.io.volume import described_info, info_as_json

    with open_source(path, key_of(key, raw), axes, channel, keep_data_bar) as source:
        info = source.info
    if as_json:
        print_json(info_as_json(info))
    else:
        put(*map(typed(context).spell, described_info(info)))

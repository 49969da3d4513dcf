"""Reading into napari: every format of ``infer``, lazily, at its place in the world, with its maps of trust."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emsr_fast.infer.trust_maps import GROUP
from emsr_fast.io.registry import open_source
from emsr_fast.io.volume import SourceVolume, info_as_json
from emsr_fast.napari.layers import METADATA, layer_options, map_options
from emsr_fast.napari.placement import placement_of

LayerData = tuple[Any, dict[str, Any], str]

_CHUNK = 2048  # px: side of what is read at once of a larger slice


def get_reader(path: str | Sequence[str]) -> Callable[[str], list[LayerData]] | None:
    """Return the reader of ``path``, None for several paths at once. Faulty files raise an error when they are read."""
    return read_layers if isinstance(path, str) else None


def read_layers(path: str) -> list[LayerData]:
    """Return the volume at ``path`` as an image layer, and one hidden layer for each of its maps of trust.

    Raises:
        VolumeError: it cannot be read.
    """
    layers = [_layer(open_source(path), Path(path).name)]
    for folder in sorted((Path(path) / GROUP).glob("*/")):
        layers.append(_layer(open_source(folder), f"{Path(path).name}: {folder.name}", map_options(folder.name)))
    return layers


def _layer(source: SourceVolume, name: str, options: dict[str, Any] | None = None) -> LayerData:
    import dask.array as da

    _, height, width = source.shape
    chunks = (1, min(height, _CHUNK), min(width, _CHUNK))
    # one access at a time: what decodes behind it need not be safe for several threads
    data = da.from_array(_Lazy(source), chunks=chunks, name=False, asarray=False, lock=True)
    shown = {"name": name, "metadata": {METADATA: info_as_json(source.info)}, **layer_options(placement_of(source))}
    if options is not None:
        shown |= {**options, "visible": False}
    return data, shown, "image"


class _Lazy:
    """A source as an array of three dimensions."""

    ndim = 3

    def __init__(self, source: SourceVolume) -> None:
        self._source = source
        self.shape, self.dtype = source.shape, source.dtype

    def __getitem__(self, where: tuple[slice | int, ...]) -> np.ndarray:
        spans = [part if isinstance(part, slice) else slice(part, part + 1) for part in where]
        slices, rows, cols = (slice(*span.indices(side)) for span, side in zip(spans, self.shape, strict=True))
        stack = np.stack([self._source.read(z, rows, cols) for z in range(slices.start, slices.stop)])
        # a number takes its axis away
        return stack[tuple(slice(None) if isinstance(part, slice) else 0 for part in where)]

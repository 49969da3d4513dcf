"""Fingerprints of model and input, small enough to store. A resumed run must have the same ones."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from emsr_fast.errors import VolumeError
from emsr_fast.io.intensity import Normalisation, check_grey_values
from emsr_fast.io.volume import SourceVolume
from emsr_fast.io.voxels import VoxelSize
from emsr_fast.model.config import EmsrConfig

if TYPE_CHECKING:
    from emsr_fast.model import Emsr

_SAMPLES, _SAMPLE_SIDE = 16, 64
_READ_WHOLE = 2**25  # voxels; more are only sampled: hashing a terabyte at every start would cost hours


@dataclass(frozen=True)
class ModelFingerprint:
    """A network: name, architecture and a hash of every weight."""

    name: str
    sha256: str
    input_bounds: tuple[float, float]
    config: EmsrConfig


@dataclass(frozen=True)
class InputFingerprint:
    """A volume: shape, dtype, voxel size, and hashes of slices, see ``of_input``."""

    shape: tuple[int, int, int]  # Z, Y, X
    dtype: str
    voxel_size_nm: VoxelSize
    sampled_slices: dict[str, str | None]  # by number of the slice; None: it cannot be used


def of_model(network: Emsr) -> ModelFingerprint:
    """Return the fingerprint of ``network``."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        values = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{name} {values.dtype.str} {values.shape}\n".encode())
        digest.update(values.tobytes())
    return ModelFingerprint(network.card.name, digest.hexdigest(), network.card.input_bounds, network.config)


def of_input(source: SourceVolume, grey: Normalisation) -> InputFingerprint:
    """Return the fingerprint of a volume.

    Up to 32 million voxels all slices are hashed whole; of larger volumes five parts of 64x64 px in each of 16 slices.

    Path, time and size of the file do not count: a copy is the same volume, and so is a volume whose damaged slice was
    mended. A slice that cannot be read, or has NaN or no-data pixels as ``grey`` sees them, has None for a hash.
    """
    depth, height, width = source.shape
    small = is_read_whole(source.shape)
    numbers = range(depth) if small else np.linspace(0, depth - 1, min(depth, _SAMPLES)).round().astype(int)
    places = [(slice(0, height), slice(0, width))] if small else _parts(height, width)
    samples: dict[str, str | None] = {}
    for z in map(int, numbers):
        digest = hashlib.sha256()
        try:
            for rows, cols in places:
                pixels = np.ascontiguousarray(source.read(z, rows, cols))
                check_grey_values(pixels, z, source, grey)
                digest.update(pixels.tobytes())
        except VolumeError:
            samples[str(z)] = None
            continue
        samples[str(z)] = digest.hexdigest()[:16]
    return InputFingerprint(source.shape, source.dtype.name, source.info.voxel_size_nm, samples)


def is_read_whole(shape: tuple[int, int, int]) -> bool:
    """Return whether a fingerprint is of all pixels of a volume of ``shape``, and not of samples."""
    return math.prod(shape) <= _READ_WHOLE


def _parts(height: int, width: int) -> list[tuple[slice, slice]]:
    """Return the middle of a slice and of its four quarters: corners are often empty."""
    quarters = ((2, 2), (1, 1), (1, 3), (3, 1), (3, 3))
    return [(_around(height * row // 4, height), _around(width * col // 4, width)) for row, col in quarters]


def _around(centre: int, size: int) -> slice:
    first = max(0, centre - _SAMPLE_SIDE // 2)
    return slice(first, min(size, first + _SAMPLE_SIDE))


def differences(then: Any, now: Any, name: str = "") -> Iterator[str]:
    """Yield "model.sha256 was ..., is ..." for each value that differs between two fingerprints."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted({*then, *now}):
            yield from differences(then.get(key), now.get(key), f"{name}.{key}" if name else key)
    # a slice that could not be read, then or now, says nothing
    elif then != now and not (".sampled_slices." in f".{name}" and None in (then, now)):
        yield f"{name} was {then!r}, is {now!r}"

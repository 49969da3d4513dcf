"""What a run depends on, small enough to write down: a resumed run must have the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from emsr_fast.errors import VolumeError
from emsr_fast.volume.formats.base import SourceVolume

if TYPE_CHECKING:
    from emsr_fast.model import Emsr

_SAMPLES, _SAMPLE_SIDE = 16, 64


def of_model(network: Emsr) -> dict[str, Any]:
    """Return name, architecture and a hash of every weight."""
    from dataclasses import asdict

    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        values = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{name} {values.dtype.str} {values.shape}\n".encode())
        digest.update(values.tobytes())
    return {"name": network.card.name, "sha256": digest.hexdigest(), **asdict(network.config)}


def of_input(source: SourceVolume) -> dict[str, Any]:
    """Return shape, dtype and voxel size, and hashes of 64x64 px from the middle of up to 16 slices.

    Not its path, time or size: a copy is the same volume, and so is one of which a damaged slice was mended. A slice
    that cannot be read has None.
    """
    depth, height, width = source.shape
    rows, cols = (slice(max(0, (side - _SAMPLE_SIDE) // 2), (side + _SAMPLE_SIDE) // 2) for side in (height, width))
    samples: dict[str, str | None] = {}
    for z in np.unique(np.linspace(0, depth - 1, min(depth, _SAMPLES)).round().astype(int)):
        try:
            pixels = np.ascontiguousarray(source.read(int(z), rows, cols))
        except VolumeError:
            samples[str(z)] = None
            continue
        samples[str(z)] = hashlib.sha256(pixels.tobytes()).hexdigest()[:16]
    return {
        "shape": list(source.shape),
        "dtype": source.dtype.name,
        "voxel_size_nm": list(source.info.voxel_size_nm),
        "sampled_slices": samples,
    }


def differences(then: Any, now: Any, name: str = "") -> Iterator[str]:
    """Yield "model.sha256 was ..., is ..." for all that differs between two fingerprints."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted({*then, *now}):
            yield from differences(then.get(key), now.get(key), f"{name}.{key}" if name else key)
    # a slice that could not be read, then or now, says nothing
    elif then != now and not (".sampled_slices." in f".{name}" and None in (then, now)):
        yield f"{name} was {then!r}, is {now!r}"

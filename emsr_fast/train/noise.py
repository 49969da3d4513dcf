"""The noise that an image, a folder or a volume has, for the degradation of HR."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from emsr_fast.metrics.noise import NoiseModel, noise_of
from emsr_fast.train.pairs import files_of
from emsr_fast.train.volumes import TrainingVolume

_SLICES = 8  # of a volume


def measure_noise(paths: Sequence[Path]) -> NoiseModel:
    """Return the noise of images; see ``noise_of``.

    Raises:
        VolumeError: an image cannot be read, or too few blocks are neither clipped nor structured.
    """

    def images() -> Iterator[np.ndarray]:
        for path in (file for given in paths for file in files_of(given)):
            volume = TrainingVolume(path)
            for z in np.unique(np.linspace(0, volume.shape[0] - 1, _SLICES).round().astype(int)):
                yield volume.normalisation.to_model(volume.whole(int(z)))

    return noise_of(images(), str(paths[0]))

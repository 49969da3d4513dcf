"""The noise of an image, a folder or a volume, for the degradation of HR."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from emsr_fast.errors import VolumeError
from emsr_fast.metrics.noise import NoiseModel, noise_of
from emsr_fast.train.pairs import files_of
from emsr_fast.train.volumes import TrainingVolume

_SLICES = 8  # of a volume


def measure_noise(paths: Sequence[Path]) -> NoiseModel:
    """Return the noise of images: the line of ``noise_of``, lowered to the noise of the flattest 2 % of their blocks.

    Raises:
        VolumeError: an image cannot be read, too few blocks are not clipped, or the noise cannot be told from structure
            (``NoiseModel.is_known``).
    """

    def images() -> Iterator[np.ndarray]:
        for path in (file for given in paths for file in files_of(given)):
            volume = TrainingVolume(path)
            for z in np.unique(np.linspace(0, volume.shape[0] - 1, _SLICES).round().astype(int)):
                yield volume.normalisation.to_model(volume.whole(int(z)))

    found = noise_of(images(), str(paths[0]))
    if not found.is_known:
        raise VolumeError(
            f"the noise of {paths[0]} cannot be told from its structure, which is as small as a pixel everywhere: the "
            f"flattest 2 % have {found.few:.1f} grey levels of 255, the flattest 0.2 % {found.very_few:.1f}, and the "
            "noise is less; give images of the same microscope with empty parts (resin)"
        )
    # where little is flat, the line is too high, at all intensities alike
    lower = (found.few / found.sigma) ** 2 if found.sigma else 1.0
    return replace(found, gain=found.gain * lower, offset=found.offset * lower, sigma=found.few)

"""Validation: a network on crops that training never sees, compared with bicubic interpolation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from emsr_fast.io.resize import bicubic
from emsr_fast.metrics import affine_fit, psnr_after_affine_fit
from emsr_fast.model.network import Emsr
from emsr_fast.pictures.sheet import side_by_side
from emsr_fast.publish import Staging
from emsr_fast.train.config import TrainConfig
from emsr_fast.train.dataset import crop_of
from emsr_fast.train.hold_back import Pair

_SHEET_ROWS = 6


@dataclass(frozen=True)
class Validation:
    """Means over the validation crops, after a least-squares affine fit of intensities; data range 1."""

    psnr_db: float
    ssim: float
    bicubic_psnr_db: float
    bicubic_ssim: float

    @property
    def gain_db(self) -> float:
        """PSNR gained over bicubic interpolation."""
        return self.psnr_db - self.bicubic_psnr_db


def validation_crops(
    groups: Sequence[Sequence[Pair]], config: TrainConfig, scale: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return fixed (LR, reference) crops, as many of each group, spread over its pairs."""
    groups = [group for group in groups if group]
    crops = []
    for number in range(config.validation_crops if groups else 0):
        # a stream of their own, apart from every training crop's
        rng = np.random.default_rng([config.seed, 0x56414C, number])
        group, turn = groups[number % len(groups)], number // len(groups)
        pair = group[turn * len(group) * len(groups) // config.validation_crops % len(group)]
        crops.append(crop_of(pair, config.crop, scale, rng))
    return crops


@torch.no_grad()
def validate(
    network: Emsr,
    crops: Sequence[tuple[np.ndarray, np.ndarray]],
    sheet: Path | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Validation | None:
    """Return the figures of ``network`` over ``crops``; write some of them side by side as a PNG ``sheet``.

    Returns:
        None if ``stopped``, called before every crop, returned True.
    """
    from skimage.metrics import structural_similarity

    device, scale = next(network.parameters()).device, network.config.scale
    was_training = network.training
    network.eval()
    rows, figures = [], []
    for low, reference in crops:
        if stopped():
            network.train(was_training)
            return None
        y = torch.from_numpy(np.ascontiguousarray(low, dtype=np.float32)).to(device)
        large, result = bicubic(low, scale), network(y).float().cpu().numpy()
        figures.append(
            [
                figure
                for image in (result, large)
                for figure in (
                    psnr_after_affine_fit(image, reference, 1.0),
                    structural_similarity(affine_fit(image, reference), reference.astype(np.float64), data_range=1.0),
                )
            ]
        )
        rows.append((np.kron(low, np.ones((scale, scale))), large, result, reference))
    network.train(was_training)
    if sheet is not None:
        columns = [np.concatenate(column) for column in zip(*rows[:_SHEET_ROWS], strict=True)]
        with Staging(sheet.resolve()) as part:
            side_by_side(list(zip(("LR", "bicubic", "EMSR", "reference"), columns, strict=True)), part)
    means = [float(mean) for mean in np.mean(figures, axis=0)] if figures else [math.nan] * 4
    return Validation(*means)

"""Is a finetuned network better than its start, on slices held back? Table, picture and verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from emsr_fast.io.resize import bicubic
from emsr_fast.metrics import affine_fit, psnr_after_affine_fit
from emsr_fast.model import Emsr
from emsr_fast.pictures.sheet import side_by_side
from emsr_fast.train.config import TrainConfig
from emsr_fast.train.hold_back import Pair
from emsr_fast.train.validate import validation_crops

_REGIONS, _SIDE_PX = 16, 96  # LR px: together a second's work for the small model
_LEAST_GAIN_DB = 0.01  # over the start: the last digit that the table shows
_LEAST_CLEAR_DB = 0.05  # over what needs no network
_DEVIATIONS = 2.0  # of the mean over regions, by which a gain must differ from none


@dataclass(frozen=True)
class Region:
    """A region that was held back."""

    lr: np.ndarray  # (h, w), normalised
    reference: np.ndarray  # (scale * h, scale * w)


@dataclass(frozen=True)
class Judgement:
    """PSNR (dB, data range 1) and SSIM of every region after a least-squares affine fit, (regions, 2) each."""

    repeated: np.ndarray  # LR pixels repeated: of white noise, the best prediction that there is
    bicubic: np.ndarray
    start: np.ndarray
    end: np.ndarray

    @property
    def gains_db(self) -> np.ndarray:
        """PSNR gained over the start, of each region."""
        return self.end[:, 0] - self.start[:, 0]

    def beaten_by(self, start: str) -> str | None:
        """Return the name of what the network does not beat by more than chance; ``start`` is its start's name."""
        for name, other, least in (
            (start, self.start, _LEAST_GAIN_DB),
            ("bicubic interpolation", self.bicubic, _LEAST_CLEAR_DB),
            ("repeating each pixel, the best that can be done with noise", self.repeated, _LEAST_CLEAR_DB),
        ):
            gains = self.end[:, 0] - other[:, 0]
            chance = _DEVIATIONS * float(gains.std(ddof=1)) / len(gains) ** 0.5
            if not gains.mean() > max(least, chance):
                return name
        return None

    def table(self, start: str, end: str) -> list[str]:
        """Return the means as lines of a table, the networks under their names."""
        rows = (("pixels repeated", self.repeated), ("bicubic", self.bicubic), (start, self.start), (end, self.end))
        width = max(len(name) for name, _ in rows)
        lines = [f"{'held back':<{width}}  PSNR, dB    SSIM  over {start}"]
        for name, figures in rows:
            psnr, ssim = figures.mean(axis=0)
            over = "" if figures is self.start else f"  {psnr - self.start[:, 0].mean():+.2f} dB"
            lines.append(f"{name:<{width}}  {psnr:8.2f}  {ssim:.4f}{over}")
        return lines

    def as_metrics(self) -> dict[str, dict[str, float] | str]:
        """Return the means as they are written into a model card."""
        named = {"pixels repeated": self.repeated, "bicubic": self.bicubic, "start": self.start, "finetuned": self.end}
        return {
            "held_back_psnr_db": {name: round(float(figures[:, 0].mean()), 2) for name, figures in named.items()},
            "held_back_ssim": {name: round(float(figures[:, 1].mean()), 4) for name, figures in named.items()},
            "how": f"{len(self.end)} regions held back from finetuning, after a least-squares affine fit",
        }


def held_regions(held: Sequence[Pair], config: TrainConfig, scale: int) -> list[Region]:
    """Return the regions to compare on, spread over the pairs ``held`` back; the same in every call."""
    room = min(min((p.rows[1] - p.rows[0]) // scale, p.reference.shape[2] // scale) for p in held)
    side = min(_SIDE_PX, room // 4 * 4)
    settings = config.model_copy(update={"crop": side, "validation_crops": _REGIONS})
    return [Region(low, reference) for low, reference in validation_crops([held], settings, scale)]


@torch.no_grad()
def results_of(network: Emsr, regions: Sequence[Region]) -> list[np.ndarray]:
    """Return the output of ``network``, in evaluation mode, for every region."""
    device = next(network.parameters()).device
    tensors = (torch.from_numpy(np.ascontiguousarray(r.lr, dtype=np.float32)).to(device) for r in regions)
    return [network(tensor).float().cpu().numpy() for tensor in tensors]


def judge(regions: Sequence[Region], start: Sequence[np.ndarray], end: Sequence[np.ndarray], scale: int) -> Judgement:
    """Compare both networks, bicubic interpolation and repeated pixels with the references."""
    repeated = [pixels_repeated(region.lr, scale) for region in regions]
    large = [bicubic(region.lr, scale) for region in regions]
    return Judgement(*(_figures(images, regions) for images in (repeated, large, start, end)))


def pixels_repeated(lr: np.ndarray, scale: int) -> np.ndarray:
    """Return ``lr`` at HR size."""
    return np.kron(lr, np.ones((scale, scale)))


def _figures(images: Sequence[np.ndarray], regions: Sequence[Region]) -> np.ndarray:
    from skimage.metrics import structural_similarity

    rows = []
    for image, region in zip(images, regions, strict=True):
        fitted, reference = affine_fit(image, region.reference), region.reference.astype(np.float64)
        rows.append(
            (
                psnr_after_affine_fit(image, region.reference, 1.0),
                structural_similarity(fitted, reference, data_range=1.0),
            )
        )
    return np.array(rows)


def picture(
    path: Path,
    regions: Sequence[Region],
    results: tuple[Sequence[np.ndarray], Sequence[np.ndarray]],
    judgement: Judgement,
    names: tuple[str, str],
) -> None:
    """Write the regions that gain least, that gain as the median does, and that gain most, as a PNG.

    Args:
        results: of the start and of the end; names: theirs.
    """
    order = np.argsort(judgement.gains_db, kind="stable")
    shown = [int(order[place]) for place in (0, len(order) // 2, -1)]
    scale = regions[0].reference.shape[0] // regions[0].lr.shape[0]

    def column(images: Sequence[np.ndarray]) -> np.ndarray:
        # intensities as in the reference: differences of contrast are not what is judged
        return np.concatenate([affine_fit(images[n], regions[n].reference) for n in shown])

    large = [bicubic(region.lr, scale) for region in regions]
    pixels = [pixels_repeated(region.lr, scale) for region in regions]
    methods = (("bicubic", judgement.bicubic), (names[0], judgement.start), (names[1], judgement.end))

    def decibels(which: list[int]) -> str:
        return ", ".join(f"{name} {figures[which, 0].mean():.2f}" for name, figures in methods)

    rows = [
        f"{what}: {decibels([n])}" for what, n in zip(("least gain", "median gain", "most gain"), shown, strict=True)
    ]
    side_by_side(
        [
            ("LR", column(pixels)),
            ("bicubic", column(large)),
            (names[0][:24], column(results[0])),
            (names[1][:24], column(results[1])),
            ("reference", np.concatenate([regions[n].reference for n in shown])),
        ],
        path,
        notes=[
            "PSNR in dB of the rows, from the top:",
            *rows,
            f"Mean of all {len(order)} regions held back, as in the table: {decibels(list(order))}",
        ],
    )

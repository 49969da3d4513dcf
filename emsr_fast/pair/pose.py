"""Where the HR field lies in LR: an affine map between pixel centres, with its rotation, ratio and stretch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Pose:
    """The affine map from HR px to LR px; pixel centres are at whole numbers, (y, x), y downwards."""

    centre: np.ndarray  # (2,) LR px: where the centre of the HR field lies
    matrix: np.ndarray  # (2, 2) LR px per HR px, near a turn divided by the pixel ratio

    @classmethod
    def of(cls, centre: tuple[float, float], ratio: float, degrees: float = 0.0) -> Pose:
        """Return a pose without shear: ``ratio`` HR px per LR px, turned by ``degrees`` as ``rotation_deg`` counts."""
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        return cls(np.array(centre, dtype=np.float64), np.array([[c, -s], [s, c]]) / ratio)

    @property
    def ratio(self) -> float:
        """HR px per LR px, from the areas: the ratio of the magnifications."""
        return float(np.linalg.det(self.matrix)) ** -0.5

    @property
    def rotation_deg(self) -> float:
        """The rotation that turns the HR field to its orientation in LR, counter-clockwise as displayed."""
        m = self.matrix
        return float(np.degrees(np.arctan2(m[1, 0] - m[0, 1], m[0, 0] + m[1, 1])))

    @property
    def stretch(self) -> float:
        """The difference of the longest and shortest stretch, from shear and unequal magnification; 0 for none."""
        largest, smallest = np.linalg.svd(self.matrix, compute_uv=False)
        return float(largest / smallest - 1)

    def in_lr(self, hr: np.ndarray, hr_shape: tuple[int, int]) -> np.ndarray:
        """Return LR px, (n, 2), of the points ``hr``, (n, 2) HR px."""
        lr: np.ndarray = self.centre + (hr - _middle(hr_shape)) @ self.matrix.T
        return lr

    def reach(self, hr_shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the smallest and largest LR px of the HR field's outermost pixel centres."""
        height, width = hr_shape
        corners = np.array([(y, x) for y in (0, height - 1) for x in (0, width - 1)], dtype=np.float64)
        lr = self.in_lr(corners, hr_shape)
        return lr.min(axis=0), lr.max(axis=0)

    def sampling(
        self, hr_shape: tuple[int, int], step: int, first: np.ndarray, level: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return matrix and offset that take a pixel of a reduced HR image to one of a reduced LR window.

        Args:
            step: HR px a side that one pixel of the HR image is the mean of.
            first: LR px of the window's first pixel.
            level: LR px a side that one pixel of the LR window is the mean of.
        """
        # the centre of a mean of n pixels lies (n - 1) / 2 behind the first one's
        start = self.in_lr(np.full((1, 2), (step - 1) / 2), hr_shape)[0]
        return self.matrix * (step / level), (start - first - (level - 1) / 2) / level

    def moved(
        self, hr_shape: tuple[int, int], step: int, shape: tuple[int, int], shift: np.ndarray, turn: np.ndarray
    ) -> Pose:
        """Return the pose after pixels x of a reduced HR image moved by shift + turn (x - middle).

        Args:
            step: as in ``sampling``.
            shape: of the reduced image.
            shift: (2,) pixels of the reduced image.
            turn: (2, 2), small.
        """
        here, middle = _middle(hr_shape), step * _middle(shape) + (step - 1) / 2
        centre = self.centre + self.matrix @ (step * shift + turn @ (here - middle))
        return Pose(centre, self.matrix @ (np.eye(2) + turn))


def _middle(shape: tuple[int, int]) -> np.ndarray:
    return (np.array(shape, dtype=np.float64) - 1) / 2

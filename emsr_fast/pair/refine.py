"""From a rough pose to an exact one: phase correlation, then Gauss-Newton on all pixels, from coarse to fine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from emsr_fast.io.volume import SourceVolume
from emsr_fast.metrics.correlation import ncc, smooth, without_background
from emsr_fast.pair.pose import Pose
from emsr_fast.pair.read_slices import read_reduced, read_window

_STEPS = 25
_STILL_PX = 1e-3  # movement of a corner at which the iteration ends
_LARGEST_TURN = 0.1  # of one step; beyond it the iteration has lost the image
_HUBER = 1.345  # deviations beyond which a pixel counts less
_STRIP_PIXELS = 2**20
_MARGIN_PX = 24  # around the field, at every level
_LEAST_SIDE = 24  # px: below this a level is too coarse to refine at
# a pixel (y, x) moves by (1, 0), (0, 1), then by these times (y, x): turn, magnify, stretch, shear
_TURNS = np.array([[[0, -1], [1, 0]], [[1, 0], [0, 1]], [[1, 0], [0, -1]], [[0, 1], [1, 0]]], dtype=np.float64)
_SIMILARITY, _AFFINE = 2, 4  # how many of them


@dataclass(frozen=True)
class Aligned:
    """A pose, and the two images on one grid, smoothed to one resolution."""

    pose: Pose
    hr: np.ndarray  # (h, w) reduced HR
    lr: np.ndarray  # (h, w) LR sampled on the grid of ``hr``
    inside: np.ndarray  # (h, w) bool: where LR has pixels
    ncc: float


class Slice:
    """One HR slice, reduced to the grid of a level when it is asked for."""

    def __init__(self, source: SourceVolume, z: int, scale: int) -> None:
        self.source, self.z, self.scale = source, z, scale
        self.shape = source.shape[1:]
        self._smooth: dict[int, np.ndarray] = {}

    def smooth(self, level: int) -> np.ndarray:
        """Return the slice with pixels of ``scale * level`` HR px, smoothed, float32."""
        if level not in self._smooth:
            height, width = self.shape
            reduced = read_reduced(self.source, self.z, range(height), range(width), self.scale * level)
            self._smooth[level] = smooth(reduced)
        return self._smooth[level]


@dataclass(frozen=True)
class Field:
    """One LR slice; windows of it are read where a pose asks for them."""

    source: SourceVolume
    z: int

    def smooth(self, moving: Slice, pose: Pose, level: int) -> tuple[np.ndarray, np.ndarray]:
        """Return what is around the place of ``moving``, reduced by ``level`` and smoothed, and its first LR px."""
        low, high = pose.reach(moving.shape)
        window, first = read_window(self.source, self.z, low, high, _MARGIN_PX * level, level)
        # the same length in nm as in the HR image, whose pixels may be a little smaller
        return smooth(window, moving.scale / pose.ratio), first


def levels(hr_shape: tuple[int, int], scale: int, coarsest: int) -> list[int]:
    """Return the levels to refine at, each half the one before, down to 1."""
    found = [1]
    while found[0] * 2 <= coarsest and min(hr_shape) // (scale * found[0] * 2) >= _LEAST_SIDE:
        found.insert(0, found[0] * 2)
    return found


def refine(moving: Slice, field: Field, start: Pose, at: list[int], steps: int = _STEPS) -> Aligned:
    """Return ``start`` made exact at each of the levels ``at``; only the last one may shear.

    A level that makes the images less alike is undone.

    Args:
        steps: of Gauss-Newton at each level, at most; few are enough to tell slices apart.
    """
    pose = start
    for level in at:
        view = _View(moving, field, pose, level)
        best = view.at(pose)
        shift = _shift(best)
        best = max(best, view.at(view.moved(pose, shift, np.zeros((2, 2)))), key=lambda aligned: aligned.ncc)
        best = _descend(best, view, _AFFINE if level == at[-1] else _SIMILARITY, steps)
        pose = best.pose
    return best


class _View:
    """Both images at one level; they cover every pose near the one they were read for."""

    def __init__(self, moving: Slice, field: Field, near: Pose, level: int) -> None:
        self._hr = moving.smooth(level)
        window, self._first = field.smooth(moving, near, level)
        self._spline = ndimage.spline_filter(window, order=3, output=np.float32, mode="mirror")
        self._hr_shape, self._step, self._level = moving.shape, moving.scale * level, level

    def at(self, pose: Pose) -> Aligned:
        matrix, offset = pose.sampling(self._hr_shape, self._step, self._first, self._level)
        lr, inside = sample(self._spline, matrix, offset, self._hr.shape)
        # smoothing has no neighbours at the edges of HR, but has them in LR
        inside[[0, 1, -2, -1]] = inside[:, [0, 1, -2, -1]] = False
        # on one grid and inside one border, so that both lose the same
        hr, lr = without_background(self._hr, inside), without_background(lr, inside)
        return Aligned(pose, hr, lr, inside, ncc(hr[inside], lr[inside]) if inside.any() else 0.0)

    def moved(self, pose: Pose, shift: np.ndarray, turn: np.ndarray) -> Pose:
        return pose.moved(self._hr_shape, self._step, self._hr.shape, shift, turn)


def sample(
    spline: np.ndarray,
    matrix: np.ndarray,
    offset: np.ndarray,
    shape: tuple[int, ...],
    displacement: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return an image of ``shape`` sampled from ``spline`` coefficients (cubic), and where it has pixels.

    Args:
        matrix: (2, 2), with ``offset`` (2,) from the image's pixels to those of ``spline``.
        displacement: (2, *shape), of the image's pixels before that.
    """
    rows, cols = np.arange(shape[0])[:, None], np.arange(shape[1])[None]
    options = {"order": 3, "mode": "mirror", "prefilter": False}
    if displacement is None:
        image = ndimage.affine_transform(spline, matrix, offset, tuple(shape), np.float32, **options)
    else:
        rows, cols = rows + displacement[0], cols + displacement[1]
    places = [a * rows + b * cols + start for (a, b), start in zip(matrix, offset, strict=True)]
    if displacement is not None:
        image = ndimage.map_coordinates(spline, places, np.float32, **options)
    inside = np.ones(shape, dtype=bool)
    for place, side in zip(places, spline.shape, strict=True):
        # up to the outer edges of the outermost pixels
        inside &= (place >= -0.5) & (place <= side - 0.5)
    return image, inside


def _shift(aligned: Aligned) -> np.ndarray:
    """Return the shift of LR to HR in px, by phase correlation to a twentieth px; 0 if it is not reliable."""
    from skimage.registration import phase_cross_correlation

    hr, lr = (np.where(aligned.inside, image, 0) * _taper(image.shape) for image in (aligned.hr, aligned.lr))
    # the result brings lr onto hr, so hr's pixels are found at its opposite
    shift = -np.asarray(phase_cross_correlation(hr, lr, upsample_factor=20, normalization=None)[0])
    return shift if np.all(np.abs(shift) < np.array(hr.shape) / 4) else np.zeros(2)


def _taper(shape: tuple[int, ...]) -> np.ndarray:
    taper: np.ndarray = np.hanning(shape[0] + 2)[1:-1, None] * np.hanning(shape[1] + 2)[None, 1:-1]
    return taper


def _descend(best: Aligned, view: _View, turns: int, steps: int) -> Aligned:
    """Return ``best`` after Gauss-Newton steps; gain and offset of the grey values are solved for with the pose."""
    current, line = best, None
    for _ in range(steps):
        if np.count_nonzero(current.inside) < _LEAST_SIDE**2 // 2:
            break
        shift, turn, line = _newton(current, line, turns)
        if not np.abs(turn).max() < _LARGEST_TURN:
            break
        current = view.at(view.moved(current.pose, shift, turn))
        if np.abs(shift).max() + np.abs(turn).max() * max(current.hr.shape) < _STILL_PX:
            break
    return max(current, best, key=lambda aligned: aligned.ncc)


def _newton(
    aligned: Aligned, line: tuple[float, float, float] | None, turns: int
) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """Return shift, turn and (gain, offset, deviation) of one step.

    Solves lr(x + d) = gain hr(x) + offset for the displacement d, linear in its parameters.
    """
    height, width = aligned.hr.shape
    gradient_y, gradient_x = np.gradient(aligned.lr)
    y = np.arange(height, dtype=np.float64)[:, None] - (height - 1) / 2
    x = np.arange(width, dtype=np.float64)[None] - (width - 1) / 2
    unit = max(height, width) / 2  # keeps the equations well conditioned
    count = 4 + turns
    normal, right = np.zeros((count, count)), np.zeros(count)
    step = max(1, _STRIP_PIXELS // width)
    for first in range(0, height, step):
        rows = slice(first, first + step)
        inside = aligned.inside[rows]
        gy, gx, hr, lr = (a[rows][inside].astype(np.float64) for a in (gradient_y, gradient_x, aligned.hr, aligned.lr))
        py, px = (np.broadcast_to(a, inside.shape)[inside] / unit for a in (y[rows], x))
        columns = [
            gy,
            gx,
            *(gy * (t[0, 0] * py + t[0, 1] * px) + gx * (t[1, 0] * py + t[1, 1] * px) for t in _TURNS[:turns]),
        ]
        columns += [-hr, -np.ones_like(hr)]
        a = np.stack(columns)
        weights = np.ones_like(hr)
        if line is not None:
            gain, offset, deviation = line
            distance = np.abs(lr - gain * hr - offset)
            weights = np.minimum(1, _HUBER * deviation / np.maximum(distance, 1e-12))
        normal += (a * weights) @ a.T
        right -= (a * weights) @ lr
    found = np.linalg.lstsq(normal, right, rcond=None)[0]
    gain, offset = float(found[-2]), float(found[-1])
    rest = np.abs(aligned.lr - gain * aligned.hr - offset)[aligned.inside]
    deviation = 1.4826 * float(np.median(rest))
    return found[:2], np.tensordot(found[2:-2], _TURNS[:turns], 1) / unit, (gain, offset, max(deviation, 1e-12))

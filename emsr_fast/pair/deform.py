"""The last, optional refinement: a B-spline free-form deformation of one slice, by SimpleITK."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from emsr_fast.errors import UsageError
from emsr_fast.installing import lacking
from emsr_fast.metrics.correlation import independent_samples, ncc, without_background
from emsr_fast.pair.refine import Aligned, Field, Slice, sample

LEAST_SPACING_PX = 16
MARGIN_PX = 16  # around the field, and the largest displacement along an axis
# control points that move less than 1 / 2.046 of their spacing cannot fold the plane
# (Y. Choi, S. Lee, Injectivity conditions of 2D and 3D uniform cubic B-spline functions, Graphical Models 62, 2000)
_FOLDS_FROM = 0.48
_LEAST_SIDE_PX = 24  # below this a level is too coarse to fit at
_STEPS = 100  # of L-BFGS-B at each level


@dataclass(frozen=True)
class Deformation:
    """The deformation that was found for a slice; px are those of the pair's LR grid."""

    transform: Any  # SimpleITK.BSplineTransform, from that grid to where LR shows the same; None: the affine map stays
    verdict: str  # "applied", or why not
    ncc_affine: float
    largest_px: float  # displacement of what is applied
    least_jacobian: float  # its smallest determinant: above 0, nothing folds; 1 where nothing is applied

    def field(self, rows: slice, cols: slice) -> np.ndarray | None:
        """Return the displacement, (2, h, w) float32 px in (y, x), of part of the grid; None where there is none."""
        return None if self.transform is None else _field(self.transform, rows, cols)

    def columns(self) -> dict[str, Any]:
        """Return its columns of the table."""
        return {
            "ncc_affine": self.ncc_affine,
            "bspline": self.verdict,
            "displacement_px": self.largest_px,
            "jacobian": self.least_jacobian,
        }


def check_spacing(spacing: float) -> None:
    """Check the spacing and SimpleITK before anything is read.

    Raises:
        UsageError: the spacing is too small, or SimpleITK is missing.
    """
    if not LEAST_SPACING_PX <= spacing < float("inf"):
        raise UsageError(
            f"`bspline` is {spacing:g}; give the distance of control points in LR px, {LEAST_SPACING_PX} or more, "
            "such as 32"
        )
    if importlib.util.find_spec("SimpleITK") is None:
        raise UsageError(f"{lacking('deforming', 'bspline')}; or leave `bspline` out")


def deform(aligned: Aligned, moving: Slice, field: Field, spacing: float) -> tuple[Aligned, Deformation]:
    """Return ``aligned`` with LR deformed to fit HR better, or as it is, and what was found.

    The deformation maximises the correlation of all pixels, at up to three resolutions. It is applied only if it folds
    nowhere, and if the NCC rises more than it would by fitting as many parameters to noise.

    Args:
        aligned: both images at level 1, the finest.
        moving: the HR slice; field: the LR slice.
        spacing: px between control points, made to divide the field.
    """
    shape = aligned.hr.shape
    window, first = field.smooth(moving, aligned.pose, 1)
    spline = ndimage.spline_filter(window, order=3, output=np.float32, mode="mirror")
    matrix, offset = aligned.pose.sampling(moving.shape, moving.scale, first, 1)
    wide_shape = (shape[0] + 2 * MARGIN_PX, shape[1] + 2 * MARGIN_PX)
    wide, covered = sample(spline, matrix, offset - matrix @ np.full(2, float(MARGIN_PX)), wide_shape)
    inner = slice(MARGIN_PX, -MARGIN_PX)
    # the same background on both sides of the border, so that the border itself is no feature
    wide -= np.pad(wide[inner, inner] - aligned.lr, MARGIN_PX, mode="edge")
    transform = _fitted(aligned, wide, covered, spacing)
    displacement = _field(transform, slice(0, shape[0]), slice(0, shape[1]))
    lr, inside = sample(spline, matrix, offset, shape, displacement)
    inside &= aligned.inside
    hr, lr = without_background(moving.smooth(1), inside), without_background(lr, inside)
    bent = Aligned(aligned.pose, hr, lr, inside, ncc(hr[inside], lr[inside]) if inside.any() else 0.0)
    least = least_jacobian(displacement)
    verdict = "folds" if least <= 0 else _verdict(aligned, bent, len(transform.GetParameters()))
    if verdict != "applied":
        return aligned, Deformation(None, verdict, aligned.ncc, 0.0, 1.0)
    largest = float(np.sqrt((displacement.astype(np.float64) ** 2).sum(axis=0).max()))
    return bent, Deformation(transform, verdict, aligned.ncc, largest, least)


def least_jacobian(displacement: np.ndarray) -> float:
    """Return the smallest Jacobian determinant of x -> x + displacement(x), (2, h, w) px; 0 or less means a fold."""
    (yy, yx), (xy, xx) = (np.gradient(part.astype(np.float64)) for part in displacement)
    return float(((1 + yy) * (1 + xx) - yx * xy).min())


def _fitted(aligned: Aligned, wide: np.ndarray, covered: np.ndarray, spacing: float) -> Any:
    """Return the transform that brings ``wide``, LR with a margin all around, known where ``covered``, onto HR."""
    import SimpleITK as sitk

    height, width = aligned.hr.shape
    fixed, within = sitk.GetImageFromArray(aligned.hr), sitk.GetImageFromArray(aligned.inside.astype(np.uint8))
    moving, known = sitk.GetImageFromArray(wide), sitk.GetImageFromArray(covered.astype(np.uint8))
    for image in (moving, known):
        image.SetOrigin((-MARGIN_PX, -MARGIN_PX))
    mesh = [max(1, round(side / spacing)) for side in (width, height)]
    transform = sitk.BSplineTransformInitializer(fixed, mesh, 3)
    furthest = min(MARGIN_PX, _FOLDS_FROM * width / mesh[0], _FOLDS_FROM * height / mesh[1])
    method = sitk.ImageRegistrationMethod()
    # sums in one order: the same result every time, on any number of cores
    method.SetNumberOfWorkUnits(1)
    method.SetMetricAsCorrelation()
    method.SetMetricFixedMask(within)
    method.SetMetricMovingMask(known)
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetInterpolator(sitk.sitkLinear)
    factors = [factor for factor in (4, 2, 1) if factor == 1 or min(height, width) // factor >= _LEAST_SIDE_PX]
    method.SetShrinkFactorsPerLevel(factors)
    method.SetSmoothingSigmasPerLevel([factor / 2 if factor > 1 else 0 for factor in factors])
    method.SetOptimizerAsLBFGSB(
        gradientConvergenceTolerance=1e-6, numberOfIterations=_STEPS, lowerBound=-furthest, upperBound=furthest
    )
    method.SetInitialTransform(transform, True)
    method.Execute(fixed, moving)
    return transform


def _field(transform: Any, rows: slice, cols: slice) -> np.ndarray:
    import SimpleITK as sitk

    size, origin = (cols.stop - cols.start, rows.stop - rows.start), (cols.start, rows.start)
    image = sitk.TransformToDisplacementField(transform, sitk.sitkVectorFloat32, size, origin)
    # SimpleITK's vectors are (x, y)
    return np.ascontiguousarray(np.moveaxis(sitk.GetArrayViewFromImage(image), -1, 0)[::-1])


def _verdict(before: Aligned, after: Aligned, numbers: int) -> str:
    hr, lr = (np.where(after.inside, image, 0).astype(np.float64) for image in (after.hr, after.lr))
    rest = hr - lr * float((hr * lr).sum()) / float((lr**2).sum())
    # n free numbers fitted to m independent pixels of noise explain n / m of it; what is left is taken for noise
    by_chance = numbers / max(independent_samples(rest, rest), 1)
    most = (1 - by_chance) * (1 - before.ncc**2)
    return "applied" if after.ncc > before.ncc and 1 - after.ncc**2 < most else "no better than chance"

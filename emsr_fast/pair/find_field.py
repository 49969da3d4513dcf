"""Where the HR stack lies in the LR stack: slice, place, rotation and magnification."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from emsr_fast.errors import VolumeError
from emsr_fast.io.volume import SourceVolume
from emsr_fast.metrics.correlation import band, independent_samples, smooth, without_background
from emsr_fast.pair.coarse_search import coarse_search
from emsr_fast.pair.pose import Pose
from emsr_fast.pair.read_slices import read_reduced
from emsr_fast.pair.refine import Aligned, Field, Slice, levels, refine

LEAST_FIELD_PX = 24  # side of an HR field in LR px; nothing smaller can be told apart
_TEMPLATE_PX = 96  # side that the HR field is reduced to for the search, where the LR field allows
_LEAST_TEMPLATE_PX = 32
_FIELD_PX = 2048  # side of the reduced LR field, at most, where the HR field allows
_BLUR_PX = 0.6  # movement of a template's edge between one candidate and the next, halved
_HITS = 6
_PROBES = 3  # HR slices to look for, one after the other
_DEPTH_PROBES = 5  # HR slices that say which LR slice is theirs
_DEPTH_SIDE_PX = 128
_QUICK_STEPS = 3  # of refinement, where slices are compared only
CERTAIN = 7.0  # deviations of chance; the best of 10^9 unrelated places comes to sqrt(2 ln 10^9) = 6.4
_CLEARLY = 0.05  # NCC by which one slice must beat another to count as evidence


@dataclass(frozen=True)
class Bounds:
    """How far the true pose may be from the stated one."""

    ratio: float  # HR px per LR px, as the voxel sizes state it
    angle_deg: float
    magnification: float  # 0.05: the ratio may be 5 % off


@dataclass(frozen=True)
class FieldPosition:
    """The place of one HR slice."""

    pose: Pose
    z: int  # HR slice
    offset: int  # LR slice of HR slice 0, may be negative
    ncc: float
    deviations: float  # of chance: how many standard deviations the NCC is from that of unrelated images

    def better_than(self, other: FieldPosition | None) -> bool:
        return other is None or self.deviations > other.deviations


def find_field(
    lr: SourceVolume,
    hr: SourceVolume,
    slices: range,
    scale: int,
    bounds: Bounds,
    *,
    offset: int | None,
    min_ncc: float,
    say: Callable[[str], None],
) -> FieldPosition:
    """Return where ``hr`` lies in ``lr``.

    Args:
        slices: those of ``hr`` to use.
        offset: LR slice of HR slice 0 if it is known; searched for otherwise.
        min_ncc: the least NCC of the best place.

    Raises:
        VolumeError: no place reaches ``min_ncc``, or the slices are constant.
    """
    best: FieldPosition | None = None
    for z in _probes(hr, slices, lr, offset):
        found = _locate_slice(lr, hr, z, scale, bounds, offset)
        if found is not None and found.better_than(best):
            best = found
        if best is not None and best.ncc >= min_ncc and best.deviations >= CERTAIN:
            break
    else:
        seen = "no place fits at all"
        if best is not None:
            seen = (
                f"the best place has an NCC of {best.ncc:.2f}, {best.deviations:.1f} deviations from chance, "
                f"where {min_ncc:g} and {CERTAIN:g} are needed"
            )
        raise VolumeError(
            f"{hr.info.path} was not found in {lr.info.path}: {seen}, within {bounds.angle_deg:g} degrees and "
            f"{100 * bounds.magnification:g} % of the ratio {bounds.ratio:.4g}; check that both show the same "
            "tissue, and the voxel sizes, or widen `max_angle` and `max_magnification`"
        )
    return best if offset is not None else _in_depth(lr, hr, slices, scale, best, say)


def _probes(hr: SourceVolume, slices: range, lr: SourceVolume, offset: int | None) -> list[int]:
    """Return the HR slices to look for, the middle one first; constant slices are left out."""
    if offset is not None:
        slices = range(max(slices.start, -offset), min(slices.stop, lr.shape[0] - offset))
        if not slices:
            raise VolumeError(
                f"with `z_offset={offset}` no slice of {hr.info.path} lies in {lr.info.path}; give another"
            )
    places = [slices[round(share * (len(slices) - 1))] for share in (0.5, 0.25, 0.75, 0.0, 1.0)]
    looked_at = f"slices {min(places)} to {max(places)}"
    _, height, width = hr.shape
    step = max(1, min(height, width) // 256)
    found = [z for z in dict.fromkeys(places) if np.ptp(read_reduced(hr, z, range(height), range(width), step)) > 0]
    if not found:
        raise VolumeError(
            f"{hr.info.path} is constant: {looked_at} contain a single grey value; give an image with contrast"
        )
    return found[:_PROBES]


def _locate_slice(
    lr: SourceVolume, hr: SourceVolume, z: int, scale: int, bounds: Bounds, offset: int | None
) -> FieldPosition | None:
    """Return the best place of HR slice ``z``, None if it fits nowhere."""
    _, height, width = lr.shape
    short = min(hr.shape[1:]) / bounds.ratio
    factor = max(1, int(short / _TEMPLATE_PX), math.ceil(max(height, width) / _FIELD_PX))
    factor = max(1, min(factor, int(short / _LEAST_TEMPLATE_PX)))
    poses, templates = _candidates(hr, z, factor, bounds)
    side = np.array(templates[0].shape)
    hits: list[tuple[float, int, Pose]] = []
    shown = 0
    for there in _slices_to_search(lr, hr, factor) if offset is None else [z + offset]:
        image = read_reduced(lr, there, range(height), range(width), factor)
        if np.ptp(image) == 0:
            continue
        shown += 1
        for hit in coarse_search(band(image), templates, _HITS):
            middle = np.array([hit.row, hit.col]) + (side - 1) / 2
            centre = middle * factor + (factor - 1) / 2
            hits.append((hit.ncc, there, Pose(centre, poses[hit.template].matrix)))
    if not shown:
        raise VolumeError(
            f"{lr.info.path} is constant: its slices contain a single grey value; give an image with contrast"
        )
    hits = sorted(hits, key=lambda hit: -hit[0])[:_HITS]
    moving = Slice(hr, z, scale)
    at = levels(moving.shape, scale, factor)
    rough = at[:-1] or at
    tried = [(refine(moving, Field(lr, there), pose, rough), there) for _, there, pose in hits]
    if not tried:
        return None
    aligned, there = max(tried, key=lambda pair: pair[0].ncc)
    aligned = refine(moving, Field(lr, there), aligned.pose, at[-1:])
    return FieldPosition(aligned.pose, z, there - z, aligned.ncc, _deviations(aligned))


def _deviations(aligned: Aligned) -> float:
    samples = independent_samples(aligned.hr, aligned.lr)
    # Fisher: atanh of a correlation is nearly normal
    return float(np.arctanh(min(aligned.ncc, 1 - 1e-9)) * math.sqrt(max(samples - 3, 0)))


def _slices_to_search(lr: SourceVolume, hr: SourceVolume, factor: int) -> range:
    """Return LR slices to search, so close to each other that the field shows in one of them at this reduction."""
    spacing, pixel = lr.info.voxel_size_nm[0], lr.info.voxel_size_nm[1]
    # tissue changes as much along z as across: one reduced pixel
    every = max(1, int(factor * pixel / spacing)) if spacing and pixel else 1
    return range(min(every // 2, lr.shape[0] - 1), lr.shape[0], every)


def _candidates(hr: SourceVolume, z: int, factor: int, bounds: Bounds) -> tuple[list[Pose], list[np.ndarray]]:
    """Return poses about the field's centre, and HR slice ``z`` as LR reduced by ``factor`` would show it in each."""
    _, height, width = hr.shape
    own = max(1, int(bounds.ratio * factor / 2))
    image = read_reduced(hr, z, range(height), range(width), own)
    # smooth as the field is, which is reduced further
    image = ndimage.spline_filter(smooth(image, bounds.ratio * factor / own), order=3, output=np.float32)
    sides = np.array([height, width]) / (bounds.ratio * (1 + bounds.magnification) * factor)
    across = math.sin(math.radians(bounds.angle_deg))
    # the largest part of the field that no candidate turns out of the image
    share = min(sides / (sides * math.cos(math.radians(bounds.angle_deg)) + sides[::-1] * across))
    shape = tuple(int(side) for side in np.maximum(sides * share, 8))
    step = 2 * _BLUR_PX / (max(shape) / 2)
    poses, templates = [], []
    for degrees in _spread(bounds.angle_deg, math.degrees(step)):
        for change in _spread(bounds.magnification, step):
            pose = Pose.of((0.0, 0.0), bounds.ratio * (1 + change), degrees)
            back = np.linalg.inv(pose.matrix)  # HR px per LR px
            middle = (np.array([height, width]) - 1) / 2
            matrix = back * factor / own
            offset = (middle - (own - 1) / 2) / own - matrix @ ((np.array(shape) - 1) / 2)
            template = ndimage.affine_transform(image, matrix, offset, shape, order=3, mode="mirror", prefilter=False)
            poses.append(pose)
            templates.append(without_background(template))
    return poses, templates


def _spread(most: float, step: float) -> np.ndarray:
    """Return values from -most to most, including 0, at most ``step`` apart."""
    count = math.ceil(most / step)
    return np.linspace(-most, most, 2 * count + 1)


def _in_depth(
    lr: SourceVolume, hr: SourceVolume, slices: range, scale: int, found: FieldPosition, say: Callable[[str], None]
) -> FieldPosition:
    """Return ``found`` with the z offset at which the stacks agree best, over several slices."""
    at = [level for level in levels(hr.shape[1:], scale, 64) if min(hr.shape[1:]) / (scale * level) >= _DEPTH_SIDE_PX]
    level = at[0] if at else 1
    reach = max(2, len(range(0, _slices_to_search(lr, hr, 64).step, 2)))
    probes = sorted({slices[int(i)] for i in np.linspace(0, len(slices) - 1, _DEPTH_PROBES).round()} | {found.z})
    moving = {z: Slice(hr, z, scale) for z in probes}
    fits: dict[int, dict[int, float]] = {z: {} for z in probes}

    def measured(offset: int) -> float:
        """Return the mean NCC over the probes that have a partner; the slice of ``found`` is always one."""
        for z in probes:
            if 0 <= z + offset < lr.shape[0] and offset not in fits[z]:
                fits[z][offset] = refine(moving[z], Field(lr, z + offset), found.pose, [level], _QUICK_STEPS).ncc
        values = [fits[z][offset] for z in probes if offset in fits[z]]
        return float(np.mean(values)) if values else -1.0

    best = found.offset
    while True:
        near = [o for o in range(best - reach, best + reach + 1) if 0 <= found.z + o < lr.shape[0]]
        better = max(near, key=measured)
        if better == best:
            break
        best = better
    for z in probes:
        if best not in fits[z]:
            continue
        other, fit = max(fits[z].items(), key=lambda item: item[1])
        if fit > fits[z][best] + _CLEARLY:
            say(
                f"note    HR slice {z} fits LR slice {z + other} (NCC {fit:.2f}) better than {z + best} "
                f"({fits[z][best]:.2f}): slices may be missing; pair the parts with `slices`"
            )
    return replace(found, offset=best)


def check_field(lr: SourceVolume, hr: SourceVolume, bounds: Bounds) -> None:
    """Raise VolumeError if the HR field is too small to be found, or larger than the LR field."""
    field = [side / bounds.ratio for side in hr.shape[1:]]
    words = f"{hr.info.path} covers {field[0]:.0f}x{field[1]:.0f} LR px"
    if min(field) < LEAST_FIELD_PX:
        raise VolumeError(f"{words}; at least {LEAST_FIELD_PX} each way are needed to find it")
    shrunk = [side / (1 + bounds.magnification) for side in field]
    if any(a > b for a, b in zip(shrunk, lr.shape[1:], strict=True)):
        raise VolumeError(
            f"{words}, more than {lr.info.path} has ({lr.shape[1]}x{lr.shape[2]}); "
            "give the large field first, and check the voxel sizes"
        )

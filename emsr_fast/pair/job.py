"""From two acquisitions to a pair set: what ``emsr-fast pair`` does, as a function."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from emsr_fast import __version__
from emsr_fast.callbacks import Progress
from emsr_fast.errors import UsageError, VolumeError
from emsr_fast.io.intensity import measure
from emsr_fast.io.registry import ChannelOf
from emsr_fast.io.selection import choose_slices, parse_slices
from emsr_fast.io.volume import SourceVolume
from emsr_fast.leftovers import tidy
from emsr_fast.pair import write
from emsr_fast.pair.deform import Deformation, check_spacing, deform
from emsr_fast.pair.find_field import FieldPosition, check_field, find_field
from emsr_fast.pair.fit_quality import FitQuality, best_rectangle, measure_fit
from emsr_fast.pair.geometry import Geometry, bounds_of, geometry
from emsr_fast.pair.pose import Pose
from emsr_fast.pair.refine import Field, Slice, levels, refine
from emsr_fast.pair.resample_pair import PairedPart, resample_pair
from emsr_fast.pair.sheet import pair_sheet
from emsr_fast.wording import shell

_FOLLOW_LEVEL = 4  # slices are close to their neighbours' pose: no need to start coarser
_LEAST_SHARE = 0.5  # of a slice's area that must fit for it to be kept
_LEAST_SIDE_PX = 16
_SHOWN = 3


@dataclass(frozen=True)
class Registered:
    """An HR slice with the LR slice it belongs to."""

    z: int
    lr_z: int
    pose: Pose
    judged: FitQuality
    reason: str = ""  # why it is rejected; empty where it is not
    deformation: Deformation | None = None  # None: not asked for


def pair(
    lr_path: str | Path,
    hr_path: str | Path,
    output: str | Path,
    *,
    scale: int = 3,
    lr_voxel: str | None = None,
    hr_voxel: str | None = None,
    max_angle: float = 5.0,
    max_magnification: float = 5.0,
    min_ncc: float = 0.6,
    bspline: float | None = None,
    z_offset: int | None = None,
    slices: str = ":",
    kind: str = "tif",
    channel: int | None = None,
    keep_data_bar: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
    progress: Progress = lambda lr_pixels: nullcontext(lambda done: None),
) -> dict[str, Any]:
    """Find the HR field inside the LR one and write training pairs; return what was found, as JSON values.

    Args:
        lr_path: the large field, anything ``open_source`` reads; hr_path: the small one.
        output: the folder to make; it appears when it is complete.
        scale: HR px per LR px of the pairs; LR is resampled to exactly this multiple of the HR pixel.
        lr_voxel: "Z,Y,X" or "XY" in nm, where the file states none or a wrong one; hr_voxel likewise.
        max_angle: largest rotation to search for, in degrees, either way; a slightly larger one may be found, too.
        max_magnification: per cent by which the ratio may differ from that of the voxel sizes.
        min_ncc: normalised cross-correlation that slices and regions must reach.
        bspline: LR px between the control points of a deformation that refines every slice; none by default.
        z_offset: LR slice of HR slice 0, where it is known; searched for otherwise.
        slices: "a:b", HR slices to use.
        kind: "tif", two folders with a file for each slice, or "zarr", two stacks of one shape.
        channel: which one of volumes that have several, counted from 0.
        keep_data_bar: whether the printed strip below a microscope's image is read, too.
        overwrite: whether to replace an existing pair set, at the very end.
        say: called with each line about the data and the result.
        progress: called with the LR px in all; returns a context manager, whose value is called with the LR px done.

    Raises:
        UsageError: the arguments contradict each other or the data.
        VolumeError: a volume cannot be read, voxel sizes are missing or do not fit, the field was not found, no slice
            fits, or the output cannot be written.
    """
    start, stop = parse_slices(slices)
    _check_numbers(scale, max_angle, max_magnification, min_ncc, kind)
    if bspline is not None:
        check_spacing(bspline)
    inputs = [Path(lr_path), Path(hr_path)]
    tidy(Path(output).resolve())
    final = write.check_folder(output, inputs, overwrite=overwrite)
    channels = ChannelOf(channel, keep_data_bar)
    with channels.open(lr_path) as lr, channels.open(hr_path) as hr:
        channels.check_used()
        chosen = choose_slices(start, stop, hr.shape[0])
        if damaged := [z for z in chosen if z in hr.info.damaged]:
            raise VolumeError(f"HR slice {damaged[0]}: {hr.info.damaged[damaged[0]]}; or leave it out with `slices`")
        shapes = geometry(lr, hr, scale, lr_voxel, hr_voxel, say)
        bounds = bounds_of(shapes, max_angle, max_magnification)
        check_field(lr, hr, bounds)
        grey = measure(lr)
        if grey.note:
            say(f"note    {grey.note}")
        intensity_range = f"{grey.low:.9g}:{grey.high:.9g}"
        found = find_field(lr, hr, chosen, scale, bounds, offset=z_offset, min_ncc=min_ncc, say=say)
        _say_found(found, shapes, say)
        with progress(len(chosen) * (hr.shape[1] // scale) * (hr.shape[2] // scale)) as done:
            registered = _register(lr, hr, chosen, scale, found, min_ncc, bspline, done)
        kept, rejected = _choose(registered, kind, min_ncc)
        if not kept:
            raise VolumeError(f"no slice of {hr.info.path} is left: slice {rejected[0].z}: {rejected[0].reason}")
        with write.staged(final, inputs, overwrite=overwrite) as folder:
            rows = _write(folder, lr, hr, kept, rejected, shapes, kind)
            height, width = (
                min(s.stop - s.start for s in sides) for sides in zip(*((k.rows, k.cols) for k in kept), strict=True)
            )
            write.write_config(folder / write.CONFIG, kind, intensity_range, scale, (height, width))
            summary = {
                "software": f"emsr_fast {__version__}",
                "lr": lr.info.path.name,
                "hr": hr.info.path.name,
                "scale": scale,
                "ratio": shapes.ratio,
                "lr_voxel_nm": shapes.lr_voxel_nm,
                "hr_voxel_nm": shapes.hr_voxel_nm,
                "z_offset": found.offset,
                "deviations_from_chance": round(found.deviations, 2),
                "min_ncc": min_ncc,
                "bspline": bspline,
                "deformed": sum(one.deformation is not None and one.deformation.transform is not None for one in kept),
                "max_angle": max_angle,
                "max_magnification": max_magnification,
                "intensity_range": intensity_range,
                "pairs": len(kept),
                "rejected": len(rejected),
            }
            write.write_settings(folder / write.SETTINGS, summary)
    for one in rejected[:_SHOWN]:
        say(f"reject  HR slice {one.z}: {one.reason}")
    if len(rejected) > _SHOWN:
        say(f"reject  and {len(rejected) - _SHOWN} more, see {write.REJECTED}")
    ncc = [float(row["ncc"]) for row in rows]
    residual = [float(row["residual_px"]) for row in rows]
    return summary | {
        "output": str(final),
        "ncc": round(float(np.median(ncc)), 4),
        "residual_px": round(float(np.nanmedian(residual)), 4),
        "train": shell("emsr-fast", "train", final / write.CONFIG),
    }


def _check_numbers(scale: int, max_angle: float, max_magnification: float, min_ncc: float, kind: str) -> None:
    if scale not in (2, 3, 4):
        raise UsageError(f"`scale` is {scale}; give 2, 3 or 4")
    if not 0 <= max_angle <= 20:
        raise UsageError(f"`max_angle` is {max_angle:g} degrees; give 0 to 20, and turn the images first if need be")
    if not 0 <= max_magnification <= 20:
        raise UsageError(f"`max_magnification` is {max_magnification:g} %; give 0 to 20, and the true voxel sizes")
    if not 0 < min_ncc < 1:
        raise UsageError(f"`min_ncc` is {min_ncc:g}; give a number above 0 and below 1")
    if kind not in ("tif", "zarr"):
        raise UsageError(f"`format` is {kind!r}; give tif or zarr")


def _say_found(found: FieldPosition, shapes: Geometry, say: Callable[[str], None]) -> None:
    pose = found.pose
    say(
        f"found   HR slice {found.z} in LR slice {found.z + found.offset}, centre at {pose.centre[0]:.2f}, "
        f"{pose.centre[1]:.2f} px (y, x), turned by {pose.rotation_deg:.3f} degrees, {pose.ratio:.4f} HR px per LR px "
        f"({shapes.ratio:.4f} stated), match (NCC) {found.ncc:.3f}, {found.deviations:.0f} sigma above chance"
    )


def _register(
    lr: SourceVolume,
    hr: SourceVolume,
    slices: range,
    scale: int,
    found: FieldPosition,
    min_ncc: float,
    bspline: float | None,
    done: Callable[[int], None],
) -> list[Registered]:
    """Return every slice of ``slices`` that has an LR partner, each registered from the pose of its neighbour."""
    results: dict[int, Registered] = {}
    at = levels(hr.shape[1:], scale, _FOLLOW_LEVEL)
    for way in (range(found.z, slices.stop), range(found.z - 1, slices.start - 1, -1)):
        pose = found.pose
        for z in way:
            there = z + found.offset
            if 0 <= there < lr.shape[0]:
                moving, field = Slice(hr, z, scale), Field(lr, there)
                aligned = refine(moving, field, pose, at)
                reason = f"NCC {aligned.ncc:.2f} is below {min_ncc:g}" if aligned.ncc < min_ncc else ""
                deformation = None
                # what does not fit is not made to fit: a deformation can invent agreement
                if bspline is not None and not reason:
                    aligned, deformation = deform(aligned, moving, field, bspline)
                results[z] = Registered(z, there, aligned.pose, measure_fit(aligned, min_ncc), reason, deformation)
                # a bad slice must not lead the next one astray
                pose = pose if reason else aligned.pose
            done(aligned.hr.size if 0 <= there < lr.shape[0] else 0)
    return [results[z] for z in sorted(results)]


def _choose(registered: list[Registered], kind: str, min_ncc: float) -> tuple[list[PairedPart], list[Registered]]:
    """Return the parts of slices that are kept, and the slices that are rejected."""
    kept: list[PairedPart] = []
    rejected = [one for one in registered if one.reason]
    fitting = [one for one in registered if not one.reason]
    groups = [fitting] if kind == "zarr" else [[one] for one in fitting]
    for group in filter(None, groups):
        first = group[0].judged
        rows, cols, members = best_rectangle(np.stack([one.judged.good for one in group]), first.rows, first.cols)
        whole = int(first.rows[-1]) * int(first.cols[-1])
        sides = (rows.stop - rows.start, cols.stop - cols.start)
        share = sides[0] * sides[1] / whole
        large = share >= _LEAST_SHARE and min(sides) >= _LEAST_SIDE_PX
        for one, member in zip(group, members, strict=True):
            if member and large:
                kept.append(PairedPart(one.z, one.lr_z, one.pose, one.judged, rows, cols, one.deformation))
                continue
            reason = f"no rectangle of half the slice, {_LEAST_SIDE_PX} px a side or more, has NCC {min_ncc:g}"
            if large:
                reason = f"NCC is below {min_ncc:g} somewhere in the rectangle common to the others"
            rejected.append(replace(one, reason=reason))
    return kept, sorted(rejected, key=lambda one: one.z)


def _write(
    folder: Path,
    lr: SourceVolume,
    hr: SourceVolume,
    kept: list[PairedPart],
    rejected: list[Registered],
    shapes: Geometry,
    kind: str,
) -> list[dict[str, Any]]:
    about = {"software": f"emsr_fast {__version__}", "lr": lr.info.path.name, "hr": hr.info.path.name}
    rows: list[dict[str, Any]] = []
    images = write.Images(folder, kind, shapes.voxels, about)
    with ExitStack() as cleaning:
        cleaning.callback(images.abort)
        first = kept[0]
        sides = (first.rows.stop - first.rows.start, first.cols.stop - first.cols.start)
        s = shapes.scale
        images.reserve({"LR": (len(kept), *sides), "HR": (len(kept), s * sides[0], s * sides[1])})
        for number, one in enumerate(kept):
            made = resample_pair(lr, hr, one, shapes)
            names = images.write(number, one.z, {"LR": made.lr, "HR": made.hr})
            bent = one.deformation.columns() if one.deformation else {}
            rows.append({"lr": names["LR"], "hr": names["HR"], **_columns(one, shapes), **bent, **made.columns(one, s)})
            if number == len(kept) // 2:
                pair_sheet(folder / write.SHEET, lr, hr, one, made, shapes)
        images.close()
    write.write_table(folder / write.TABLE, rows)
    if rejected:
        write.write_table(
            folder / write.REJECTED, [{"reason": one.reason, **_columns(one, shapes)} for one in rejected]
        )
    return rows


def _columns(one: PairedPart | Registered, shapes: Geometry) -> dict[str, Any]:
    pose = one.pose
    return {
        "lr_slice": one.lr_z,
        "hr_slice": one.z,
        "shift_y_px": float(pose.centre[0]),
        "shift_x_px": float(pose.centre[1]),
        "rotation_deg": pose.rotation_deg,
        "magnification": pose.ratio / shapes.ratio,
        "ratio": pose.ratio,
        "stretch": pose.stretch,
        "ncc": one.judged.ncc,
        "residual_px": one.judged.residual_px,
        **{f"matrix_{n}": float(v) for n, v in zip(("yy", "yx", "xy", "xx"), pose.matrix.ravel(), strict=True)},
    }

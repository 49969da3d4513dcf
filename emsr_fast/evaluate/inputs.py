"""The volumes of an evaluation: opened together, checked to show the same field, read sample by sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np

from emsr_fast.errors import UsageError
from emsr_fast.evaluate.samples import Sample
from emsr_fast.io.intensity import Normalisation, check_finite, measure, parse_range
from emsr_fast.io.provenance import Provenance, read_provenance
from emsr_fast.io.registry import ChannelOf
from emsr_fast.io.resize import bicubic
from emsr_fast.io.volume import SourceVolume
from emsr_fast.io.voxels import meant
from emsr_fast.wording import counted

# a bicubic kernel reaches two LR pixels
_BICUBIC_REACH = 3
_SQUARE = 0.01  # sides of a pixel that differ by less, relatively, count as equal


@dataclass(frozen=True)
class EvaluationInputs:
    """The volumes of an evaluation, and what is known about them."""

    sr: SourceVolume
    lr: SourceVolume | None
    reference: SourceVolume | None
    second_scan: SourceVolume | None
    trust: SourceVolume | None  # the error to expect of SR
    provenance: Provenance  # of the SR volume
    scale: int | None  # HR pixels per LR pixel
    first_slice: Mapping[str, int]  # by name of a volume: its slice that is slice 0 of SR
    pixel_nm: float | None  # side of an SR pixel; None: unknown, or pixels are not square
    pixel_nm_from: str
    grey: Normalisation  # the data range, in grey values of the fixed image, or of SR without one

    @property
    def fixed_name(self) -> str | None:
        """The volume that fidelity is measured against: the reference, else the second scan."""
        return "reference" if self.reference else "second scan" if self.second_scan else None

    @property
    def paths(self) -> list[PurePath]:
        """The files and folders of all volumes."""
        volumes = (self.sr, self.lr, self.reference, self.second_scan, self.trust)
        return [volume.info.path for volume in volumes if volume is not None]

    def read(self, sample: Sample) -> dict[str, np.ndarray]:
        """Return the images of ``sample`` by name.

        "sr", and what there is of "lr", "bicubic", "reference", "second scan"; all but "lr" of the sample's shape.

        Raises:
            VolumeError: a slice cannot be read, or has NaN pixels.
        """
        images = {"sr": _read(self.sr, sample.z, sample.rows, sample.cols)}
        for name, volume in (("reference", self.reference), ("second scan", self.second_scan)):
            if volume is not None:
                images[name] = _read(volume, sample.z + self.first_slice[name], sample.rows, sample.cols)
        if self.lr is not None and self.scale is not None:
            images["lr"], images["bicubic"] = self._coarse(self.lr, sample, self.scale)
        return images

    def read_trust(self, sample: Sample) -> np.ndarray | None:
        """Return the expected error of ``sample``; None without a map of it."""
        return None if self.trust is None else _read(self.trust, sample.z, sample.rows, sample.cols)

    def _coarse(self, lr: SourceVolume, sample: Sample, scale: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the LR pixels under ``sample`` and their bicubic enlargement, which uses the neighbours, too."""
        spans, inner = [], []
        for span, side in zip((sample.rows, sample.cols), lr.shape[1:], strict=True):
            start, stop = span.start // scale, span.stop // scale
            around = slice(max(start - _BICUBIC_REACH, 0), min(stop + _BICUBIC_REACH, side))
            spans.append(around)
            inner.append(slice(start - around.start, stop - around.start))
        wide = _read(lr, sample.z + self.first_slice["lr"], *spans)
        large = bicubic(wide, scale)[tuple(slice(s.start * scale, s.stop * scale) for s in inner)]
        return wide[tuple(inner)], large


@contextmanager
def open_inputs(
    sr: str | Path,
    *,
    reference: str | Path | None,
    lr: str | Path | None,
    second_scan: str | Path | None,
    trust: str | Path | None = None,
    intensity_range: str | None,
    pixel_nm: float | None,
    channel: int | None = None,
    keep_data_bar: bool = False,
) -> Iterator[EvaluationInputs]:
    """Open all volumes and check that they fit together; see ``evaluate`` for the arguments.

    Raises:
        VolumeError: a volume cannot be read, or is constant.
        UsageError: shapes do not fit.
    """
    channels = ChannelOf(channel, keep_data_bar)
    with ExitStack() as stack:
        volumes: dict[str, SourceVolume | None] = {"sr": stack.enter_context(channels.open(sr))}
        for name, path in (("lr", lr), ("reference", reference), ("second scan", second_scan)):
            volumes[name] = stack.enter_context(channels.open(path)) if path is not None else None
        result = volumes["sr"]
        assert result is not None
        provenance = read_provenance(Path(sr))
        expected = stack.enter_context(channels.open(trust)) if trust is not None else None
        channels.check_used()
        if expected is not None and expected.shape != result.shape:
            raise UsageError(
                f"`trust` is {expected.shape} and SR {result.shape}; give the map of the error written with this SR"
            )
        scale = _scale(result, volumes["lr"], provenance)
        for name in ("reference", "second scan"):
            _check_field(name, volumes[name], result)
        known = {name: volume for name, volume in volumes.items() if volume is not None}
        size_nm, stated = _pixel_size(known, scale, pixel_nm)
        fixed = volumes["reference"] or volumes["second scan"] or result
        yield EvaluationInputs(
            sr=result,
            lr=volumes["lr"],
            reference=volumes["reference"],
            second_scan=volumes["second scan"],
            trust=expected,
            provenance=provenance,
            scale=scale,
            first_slice={name: _first_slice(name, volume, result, provenance) for name, volume in known.items()},
            pixel_nm=size_nm,
            pixel_nm_from=stated,
            grey=parse_range(intensity_range, fixed.dtype) if intensity_range else measure(fixed),
        )


def _scale(sr: SourceVolume, lr: SourceVolume | None, provenance: Provenance) -> int | None:
    if lr is None:
        return provenance.scale
    (_, height, width), (_, low_height, low_width) = sr.shape, lr.shape
    scale = height // low_height
    if scale < 2 or (height, width) != (scale * low_height, scale * low_width):
        raise UsageError(
            f"SR slices are {height}x{width} px and LR slices {low_height}x{low_width}, not a whole multiple "
            "of 2 or more; give the LR that the SR was made from"
        )
    return scale


def _check_field(name: str, volume: SourceVolume | None, sr: SourceVolume) -> None:
    if volume is not None and volume.shape[1:] != sr.shape[1:]:
        raise UsageError(
            f"{name} slices are {volume.shape[1]}x{volume.shape[2]} px and SR slices {sr.shape[1]}x{sr.shape[2]}; "
            "they must show the same field on the same grid: crop or register them first"
        )


def _first_slice(name: str, volume: SourceVolume, sr: SourceVolume, provenance: Provenance) -> int:
    depth, wanted = volume.shape[0], sr.shape[0]
    if depth == wanted:
        return 0
    if provenance.slices is not None:
        start, stop = provenance.slices
        if stop - start == wanted and stop <= depth:
            return start
    raise UsageError(f"{name} has {counted(depth, 'slice')} and SR {wanted}; give volumes of the same slices")


def _pixel_size(
    volumes: Mapping[str, SourceVolume], scale: int | None, given: float | None
) -> tuple[float | None, str]:
    if given is not None:
        return given, "given"
    for name in ("sr", "reference", "second scan", "lr"):
        if name not in volumes or (name == "lr" and scale is None):
            continue
        _, y, x = volumes[name].info.voxel_size_nm
        if y is None or x is None:
            continue
        if abs(y - x) > _SQUARE * max(x, y):
            return None, f"pixels of {y:g} x {x:g} nm are not square: resolution is in pixels"
        return meant(x / (scale or 1 if name == "lr" else 1)), f"{name.upper() if name in ('sr', 'lr') else name} file"
    return None, "no file states it: resolution is in pixels; give `pixel_nm`"


def _read(volume: SourceVolume, z: int, rows: slice, cols: slice) -> np.ndarray:
    image = volume.read(z, rows, cols)
    check_finite(image, z, volume)
    return image

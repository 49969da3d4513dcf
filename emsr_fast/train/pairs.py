"""Which slice goes with which: sources become lists of pairs, checked before training starts."""

from __future__ import annotations

import csv
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from emsr_fast.errors import UsageError, VolumeError
from emsr_fast.train.config import Degradation, Source
from emsr_fast.train.denoise import denoise_slice, kept_under, write_stack
from emsr_fast.volume.formats import open_source, within
from emsr_fast.volume.formats.base import SourceVolume
from emsr_fast.volume.formats.images import IMAGE_SUFFIXES, natural_key
from emsr_fast.volume.intensity import Normalisation, check_finite, measure
from emsr_fast.volume.job import parse_slices

_CHECKED_SLICES = 16  # of each volume, before training
DENOISED = "denoised, in the range of its source"  # where such a reference's normalisation is from
_CONTRAST_RATIO = 2.0  # between LR and HR, beyond which their grey values cannot be of one kind


class TrainingVolume:
    """A volume whose decoded slices are kept, as far as a limit allows; intensities normalised, float32."""

    def __init__(self, path: Path, *, normalisation: Normalisation | None = None, keep_bytes: int = 2**29) -> None:
        self.path = path
        self._source: SourceVolume | None = None
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._keep_bytes = keep_bytes
        source = self._opened()
        self.shape, self.dtype = source.shape, source.dtype
        self.normalisation = normalisation or measure(source)

    def __getstate__(self) -> dict[str, object]:
        # open files do not travel to a worker process
        return {**self.__dict__, "_source": None, "_kept": OrderedDict()}

    def _opened(self) -> SourceVolume:
        if self._source is None:
            self._source = open_source(self.path)
        return self._source

    def whole(self, z: int) -> np.ndarray:
        """Return slice ``z``, (Y, X) in the file's dtype."""
        if z in self._kept:
            self._kept.move_to_end(z)
            return self._kept[z]
        source = self._opened()
        _, height, width = self.shape
        image = source.read(z, slice(0, height), slice(0, width))
        check_finite(image, z, source)
        self._kept[z] = image
        while len(self._kept) > 1 and len(self._kept) * image.nbytes > self._keep_bytes:
            self._kept.popitem(last=False)
        return image

    def crop(self, z: int, rows: slice, cols: slice) -> np.ndarray:
        """Return part of slice ``z``, normalised."""
        return self.normalisation.to_model(self.whole(z)[rows, cols])


@dataclass(frozen=True)
class Pair:
    """An LR slice, or the slice that LR is made from, and its noisy reference."""

    origin: TrainingVolume
    z: int
    reference: TrainingVolume
    reference_z: int
    rows: tuple[int, int]  # of the reference, HR px: what may be used
    degradation: Degradation | None  # None: origin is acquired LR

    @property
    def names(self) -> str:
        """Both files, for messages."""
        return f"{self.origin.path} slice {self.z} and {self.reference.path} slice {self.reference_z}"


def pairs_of(source: Source, scale: int, crop: int, cache: Path) -> tuple[list[Pair], list[Pair]]:
    """Return the pairs of ``source`` for training and those held back for validation.

    Args:
        scale: HR pixels per LR pixel.
        crop: side of an LR crop; every pair must have room for one.
        cache: folder where denoised references are kept.

    Raises:
        VolumeError: a file cannot be read, is constant, or does not fit its partner; names it.
        UsageError: nothing is left to train on.
    """
    made = source.degradation if source.strategy == "synthetic" else None
    everything: list[Pair] = []
    held_files: list[Pair] = []
    for number, (origin, reference) in enumerate(_matched(source, cache)):
        _check_partners(origin, reference, 1 if made else scale)
        _check_content(origin, reference)
        height = reference.shape[1]
        for z in range(origin.shape[0]):
            if 0 <= z + source.reference_offset < reference.shape[0]:
                held = source.validation_every and number % source.validation_every == 0
                (held_files if held else everything).append(
                    Pair(origin, z, reference, z + source.reference_offset, (0, height), made)
                )
    held_slices = _indices(source.validation_slices, everything) if source.validation_slices else set()
    used_slices = _indices(source.slices, everything) - held_slices
    training = [replace(p, rows=_rows(source.rows, p)) for p in everything if p.z in used_slices]
    validation = [p for p in everything if p.z in held_slices]
    if source.validation_rows:
        whole = validation if source.validation_slices else everything
        validation = [replace(p, rows=_rows(source.validation_rows, p)) for p in whole]
    validation += held_files
    for p in (*training, *validation):
        needed = (scale * crop, scale * crop)
        seen = (p.rows[1] - p.rows[0], p.reference.shape[2])
        if seen[0] < needed[0] or seen[1] < needed[1]:
            raise VolumeError(
                f"{p.reference.path} offers {seen[0]}x{seen[1]} HR px, a crop of {crop} LR px "
                f"needs {needed[0]}x{needed[1]}; give a smaller crop"
            )
    if not training:
        raise UsageError(f"{source.hr or source.pairs} has no slice left to train on; check slices and validation")
    return training, validation


def _matched(source: Source, cache: Path) -> Iterator[tuple[TrainingVolume, TrainingVolume]]:
    """Yield (origin, reference) volumes."""
    if source.pairs is not None:
        rows = _manifest(source.pairs)
    else:
        assert source.hr is not None  # the configuration has checked it
        hr = [source.hr] if source.volume else files_of(source.hr)
        if source.pattern:
            rows = _by_ending(hr, source.pattern, source.hr)
        elif source.lr is None:
            rows = [(path, path) for path in hr]
        else:
            lr = [source.lr] if source.volume else files_of(source.lr)
            if len(lr) != len(hr):
                raise VolumeError(f"{source.lr} has {len(lr)} images and {source.hr} has {len(hr)}; pairs need as many")
            rows = list(zip(lr, hr, strict=True))
    for origin_path, reference_path in rows:
        origin = TrainingVolume(origin_path)
        if source.denoiser:
            made = _denoised(reference_path, source.denoiser, cache)
            yield origin, TrainingVolume(made, normalisation=Normalisation(0.0, 1.0, DENOISED))
        else:
            yield origin, origin if reference_path == origin_path else TrainingVolume(reference_path)


def _denoised(path: Path, kind: str, cache: Path) -> Path:
    """Return a TIFF of the volume at ``path`` with every slice denoised, made now unless it is there already."""
    target = kept_under(path, kind, cache)
    if not target.exists():
        volume = TrainingVolume(path)
        images = (denoise_slice(volume.normalisation.to_model(volume.whole(z)), kind) for z in range(volume.shape[0]))
        write_stack(target, images)
    return target


def files_of(path: Path) -> list[Path]:
    """Return the images of a folder, each one a volume by itself, or the one volume at ``path``."""
    if not within(path)[0].exists():
        raise VolumeError(f"{path} does not exist; check the path")
    if not path.is_dir() or (path / "zarr.json").exists():
        return [path]
    files = [p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    if not files:
        raise VolumeError(f"{path} has no images ({', '.join(sorted(IMAGE_SUFFIXES))}) in it")
    return sorted(files, key=lambda p: natural_key(p.name))


def _by_ending(files: Sequence[Path], endings: tuple[str, str], folder: Path) -> list[tuple[Path, Path]]:
    first, second = ({p.name.removesuffix(end): p for p in files if p.name.endswith(end)} for end in endings)
    if lonely := sorted(first.keys() ^ second.keys()):
        raise VolumeError(f"{folder}: {lonely[0]!r} has no partner ending in {endings[0]!r} or {endings[1]!r}")
    if not first:
        raise VolumeError(f"{folder} has no files that end in {endings[0]!r} and {endings[1]!r}")
    return [(first[name], second[name]) for name in sorted(first, key=natural_key)]


def _manifest(path: Path) -> list[tuple[Path, Path]]:
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise VolumeError(f"pairs file {path} cannot be read: {error}") from error
    if not rows or not {"lr", "hr"} <= set(rows[0]):
        raise VolumeError(f"pairs file {path} must have the columns lr and hr and at least one row")
    return [(path.parent / row["lr"], path.parent / row["hr"]) for row in rows]


def _check_partners(origin: TrainingVolume, reference: TrainingVolume, scale: int) -> None:
    depth, height, width = origin.shape
    expected = (depth, height * scale, width * scale)
    if reference.shape != expected:
        raise VolumeError(
            f"{reference.path} is {reference.shape} (Z, Y, X), but {origin.path} is {origin.shape}: "
            f"expected {expected} at x{scale}"
        )
    if origin.dtype != reference.dtype and reference.normalisation.origin != DENOISED:
        raise VolumeError(
            f"{origin.path} is {origin.dtype.name} and {reference.path} is {reference.dtype.name}; store both alike"
        )


def _check_content(*volumes: TrainingVolume) -> None:
    """Refuse constant slices, NaN, and partners whose contrast is not of one kind; a few slices are looked at."""
    spreads = []
    for volume in dict.fromkeys(volumes):
        found = []
        for z in np.unique(np.linspace(0, volume.shape[0] - 1, _CHECKED_SLICES).round().astype(int)):
            values = volume.normalisation.to_model(volume.whole(int(z)))
            if values.min() == values.max():
                raise VolumeError(f"{volume.path} slice {z} is constant; leave it out")
            found.append(np.subtract(*np.percentile(values, (95, 5))))
        # what denoising takes away is contrast, too
        if volume.normalisation.origin != DENOISED:
            spreads.append(float(np.median(found)))
    if min(spreads) * _CONTRAST_RATIO < max(spreads):
        names = " and ".join(str(v.path) for v in dict.fromkeys(volumes))
        raise VolumeError(
            f"{names} differ in contrast (spread {spreads[0]:.3g} and {spreads[-1]:.3g} of the range); "
            "bring both to the same grey values"
        )


def _indices(text: str, pairs: Sequence[Pair]) -> set[int]:
    start, stop = parse_slices(text)
    depth = max(p.z for p in pairs) + 1
    return set(range(start or 0, depth if stop is None else min(stop, depth)))


def _rows(text: str, pair: Pair) -> tuple[int, int]:
    start, stop = parse_slices(text)
    height = pair.reference.shape[1]
    return start or 0, height if stop is None else min(stop, height)

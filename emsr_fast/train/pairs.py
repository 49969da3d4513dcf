"""Sources become lists of pairs of slices, checked before training starts."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emsr_fast.errors import UsageError, VolumeError
from emsr_fast.io.formats import is_volume_folder
from emsr_fast.io.intensity import Normalisation
from emsr_fast.io.locations import within
from emsr_fast.io.readers.parts.image_names import IMAGE_SUFFIXES, check_names, images_among, natural_key
from emsr_fast.io.registry import ChannelOf
from emsr_fast.metrics.correlation import band, ncc
from emsr_fast.reading import read_regular
from emsr_fast.train.config import Source
from emsr_fast.train.degrade import reduce
from emsr_fast.train.denoise import denoise_slice, kept_under, write_stack
from emsr_fast.train.drift import UndriftedVolume
from emsr_fast.train.hold_back import Pair, split
from emsr_fast.train.volumes import TrainingVolume

_CHECKED_PAIRS = 32  # of each source, before training
DENOISED = "denoised, in the range of its source"  # where such a reference's normalisation is from
_LEAST_NCC = 0.3  # of partners; what unrelated and registered slices have is in docs/pairs.md
_CONTRAST_RATIO = 2.0  # between LR and HR, beyond which their grey values cannot be of one kind


class TooSmall(VolumeError):
    """An image has no room for a crop."""

    def __init__(self, text: str, volume: TrainingVolume) -> None:
        super().__init__(text)
        self.path = volume.path
        _, self.height, self.width = volume.shape


def pairs_of(source: Source, scale: int, crop: int, cache: Path) -> tuple[list[Pair], list[Pair]]:
    """Return the pairs of ``source`` for training and those held back for validation.

    Slices, rows and files that are held back are never trained on, neither as LR nor as reference.

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
        if source.drift:
            origin = UndriftedVolume(origin, reference)
        held = source.validation_every and number % source.validation_every == 0
        for z in range(origin.shape[0]):
            if 0 <= z + source.reference_offset < reference.shape[0]:
                (held_files if held else everything).append(
                    Pair(origin, z, reference, z + source.reference_offset, (0, reference.shape[1]), made)
                )
    if not everything:
        raise UsageError(
            f"{source.hr or source.pairs} has nothing to train on: check reference_offset (it needs volume: true "
            "for a folder of slices) and validation_every"
        )
    training, validation = split(source, everything, scale * crop, scale)
    validation += held_files
    for p in (*training, *validation):
        _check_whole(p)
        _check_room(p, scale, crop)
    if not training:
        raise UsageError(f"{source.hr or source.pairs} has no slice left to train on; check slices and validation")
    _check_content([*training, *validation], scale)
    return training, validation


def check_apart(training: Sequence[Pair], validation: Sequence[Pair]) -> None:
    """Raise UsageError if a pixel of ``validation`` is in ``training``, too, in whatever source."""
    held: dict[tuple[Path, int], list[tuple[int, int]]] = {}
    for pair in validation:
        for place in pair.places:
            held.setdefault(place, []).append(pair.rows)
    for pair in training:
        for place in pair.places:
            for first, last in held.get(place, ()):
                if pair.rows[0] < last and first < pair.rows[1]:
                    raise UsageError(
                        f"{place[0]} slice {place[1]} is trained on by one source and held back by another; "
                        "give both the same validation settings, or narrow slices or rows"
                    )


def _matched(source: Source, cache: Path) -> Iterator[tuple[TrainingVolume, TrainingVolume]]:
    """Yield (origin, reference) volumes."""
    if source.pairs is not None:
        rows = manifest(source.pairs)
    else:
        assert source.hr is not None  # the configuration has checked it
        hr = [source.hr] if source.volume else files_of(source.hr)
        if source.pattern:
            rows = _by_ending(hr, source.pattern, source.hr)
        elif source.lr is None:
            check_names(hr)
            rows = [(path, path) for path in hr]
        else:
            lr = [source.lr] if source.volume else files_of(source.lr)
            check_names(hr)
            check_names(lr)
            if len(lr) != len(hr):
                raise VolumeError(f"{source.lr} has {len(lr)} images and {source.hr} has {len(hr)}; pairs need as many")
            rows = list(zip(lr, hr, strict=True))
    if source.channel is not None:
        channels = ChannelOf(source.channel, source.keep_data_bar)
        for path in rows[0]:
            channels.open(path).close()
        channels.check_used()
    as_given: dict[str, Any] = {
        "intensity_range": source.intensity_range,
        "channel": source.channel,
        "keep_data_bar": source.keep_data_bar,
    }
    for origin_path, reference_path in rows:
        origin = TrainingVolume(origin_path, **as_given)
        if source.denoiser:
            made = _denoised(reference_path, source.denoiser, cache, **as_given)
            yield origin, TrainingVolume(made, normalisation=Normalisation(0.0, 1.0, DENOISED))
        else:
            same = reference_path == origin_path
            yield origin, origin if same else TrainingVolume(reference_path, **as_given)


def _denoised(path: Path, kind: str, cache: Path, **as_given: Any) -> Path:
    """Return a TIFF of the volume at ``path`` with every slice denoised, made now unless it is there already."""
    target = kept_under(path, kind, cache, **as_given)
    if not target.exists():
        volume = TrainingVolume(path, **as_given)
        images = (denoise_slice(volume.normalisation.to_model(volume.whole(z)), kind) for z in range(volume.shape[0]))
        write_stack(target, images)
    return target


def files_of(path: Path) -> list[Path]:
    """Return the images of a folder, each one a volume by itself, or the one volume at ``path``."""
    if not within(path)[0].exists():
        raise VolumeError(f"{path} does not exist; check the path")
    if not path.is_dir() or is_volume_folder(path):
        return [path]
    files = images_among(list(path.iterdir()))
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


def manifest(path: Path) -> list[tuple[Path, Path]]:
    """Return the LR and the HR of every row of a table of pairs, each once."""
    try:
        # Excel begins its files with a mark
        rows = list(csv.DictReader(io.StringIO(read_regular(path).decode("utf-8-sig"), newline="")))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise VolumeError(f"pairs file {path} cannot be read: {error}") from error
    if not rows or not {"lr", "hr"} <= set(rows[0]):
        raise VolumeError(f"pairs file {path} must have the columns lr and hr and at least one row")
    for number, row in enumerate(rows):
        if not row["lr"] or not row["hr"]:
            raise VolumeError(f"pairs file {path}: row {number + 1} lacks lr or hr")
    # a table of slices names a stack once for each of them
    return list(dict.fromkeys((path.parent / row["lr"], path.parent / row["hr"]) for row in rows))


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


def _check_whole(pair: Pair) -> None:
    """Raise VolumeError before training starts if a slice cannot be read."""
    for volume, z in ((pair.origin, pair.z), (pair.reference, pair.reference_z)):
        if z in volume.damaged:
            raise VolumeError(f"slice {z} of {volume.path}: {volume.damaged[z]}; or leave it out")


def _check_room(pair: Pair, scale: int, crop: int) -> None:
    first, last = pair.rows
    # acquired LR is cropped at whole LR pixels
    high = last - first if pair.degradation else (last // scale - math.ceil(first / scale)) * scale
    wide = pair.reference.shape[2]
    most = pair.degradation.hr_reduction[1] if pair.degradation else 1.0
    needed = math.ceil(most * scale * crop)
    if high < needed or wide < needed:
        raise TooSmall(
            f"{pair.reference.path} offers {high}x{wide} HR px, a crop of {crop} LR px"
            f"{f', reduced by up to {most:g},' if most > 1 else ''} needs {needed}x{needed}; "
            f"give a smaller crop{' or hr_reduction' if most > 1 else ''}",
            pair.reference,
        )


def _check_content(pairs: Sequence[Pair], scale: int) -> None:
    """Raise VolumeError if slices are constant or have NaN, or partners differ; some of the pairs are checked."""
    for number in np.unique(np.linspace(0, len(pairs) - 1, _CHECKED_PAIRS).round().astype(int)):
        pair = pairs[number]
        spreads = []
        for volume, z in ((pair.origin, pair.z), (pair.reference, pair.reference_z)):
            values = volume.normalisation.to_model(volume.whole(z))
            if values.min() == values.max():
                raise VolumeError(f"{volume.path} slice {z} is constant; leave it out")
            # what denoising takes away is contrast, too
            if volume.normalisation.origin != DENOISED:
                spreads.append(_contrast(values))
        if min(spreads) * _CONTRAST_RATIO < max(spreads):
            raise VolumeError(
                f"{pair.origin.path} and {pair.reference.path} differ in contrast (spread {spreads[0]:.3g} and "
                f"{spreads[-1]:.3g} of the range); bring both to the same grey values"
            )
        if pair.places != {(pair.origin.path, pair.z)} and (found := _likeness(pair, scale)) < _LEAST_NCC:
            raise VolumeError(
                f"{pair.describe()} do not show the same field: correlation {found:.2f}, at least {_LEAST_NCC:g}; "
                "check the order of the files, or register them with emsr-fast pair"
            )


def _likeness(pair: Pair, scale: int) -> float:
    """Return the NCC of both partners at LR pixel size, without single-pixel noise or slow changes of brightness."""
    low, high = pair.origin.whole(pair.z), pair.reference.whole(pair.reference_z)
    if pair.degradation is not None:
        low = reduce(low.astype(np.float32), scale)
    high = reduce(high.astype(np.float32), scale)
    rows = slice(math.ceil(pair.rows[0] / scale), pair.rows[1] // scale)
    return ncc(band(low[rows]), band(high[rows]))


def _contrast(values: np.ndarray) -> float:
    """Return the spread of means over a sixteenth of the image's sides: noise hardly affects it."""
    side = max(1, min(values.shape) // 16)
    rows, cols = values.shape[0] // side, values.shape[1] // side
    means = values[: rows * side, : cols * side].reshape(rows, side, cols, side).mean(axis=(1, 3))
    return float(np.subtract(*np.percentile(means, (95, 5))))

"""Pairs of slices, and those (or their rows) that are held back from training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from emsr_fast.errors import UsageError
from emsr_fast.io.selection import parse_slices
from emsr_fast.train.config import Degradation, Source
from emsr_fast.train.volumes import TrainingVolume
from emsr_fast.wording import counted, listed

_SHOWN_NAMES = 3


@dataclass(frozen=True)
class Pair:
    """An LR slice, or the slice that LR is made from, and its noisy reference."""

    origin: TrainingVolume
    z: int
    reference: TrainingVolume
    reference_z: int
    rows: tuple[int, int]  # of the reference, HR px: what may be used
    degradation: Degradation | None  # None: origin is acquired LR

    def describe(self) -> str:
        """Return both files, slices and shapes in words."""
        sides = dict.fromkeys(((self.origin, self.z), (self.reference, self.reference_z)))
        named = [f"{_named(v, z)} {v.shape[1]}x{v.shape[2]}" for v, z in sides]
        return " -> ".join(named) if len(named) > 1 else f"{named[0]}, LR is made of it"

    @property
    def places(self) -> set[tuple[Path, int]]:
        """File and slice of the LR and of the reference."""
        return {(self.origin.path, self.z), (self.reference.path, self.reference_z)}


def described_split(training: Sequence[Pair], held: Sequence[Pair]) -> str:
    """Return in words how many slices there are to learn from and which are held back."""
    noun = "slice" if all(len(p.places) == 1 for p in training) else "pair"
    if not held:
        return f"{counted(len(training), noun)} to learn from, none held back"
    names = [_named(p.reference, p.reference_z) for p in held]
    learnt = {place for p in training for place in p.places}
    if any(p.places & learnt for p in held):
        first, last = held[0].rows
        return f"{counted(len(training), noun)} to learn from, rows of each held back ({first}:{last} of {names[0]})"
    every = counted(len(training) + len(held), noun)
    return f"{every}: {len(training)} to learn from, {len(held)} held back ({listed(names, _SHOWN_NAMES)})"


def _named(volume: TrainingVolume, z: int) -> str:
    return volume.path.name if volume.shape[0] == 1 else f"{volume.path.name} slice {z}"


def split(source: Source, pairs: Sequence[Pair], crop_hr: int, scale: int) -> tuple[list[Pair], list[Pair]]:
    """Return the pairs to train on and those held back, as the validation settings of ``source`` say.

    Args:
        pairs: all of the source, whole slices.
        crop_hr: side of a crop, HR px; rows held back for a share are at least as many.
        scale: HR pixels per LR pixel.

    Raises:
        UsageError: rows held back lie in the middle of those to train on.
    """
    used = _indices(source.slices, pairs)
    if source.validation_share:
        wanted = [replace(p, rows=_rows(source.rows, p)) for p in pairs if p.z in used]
        return _split_by_share(wanted, source.validation_share, crop_hr, scale)
    held = _indices(source.validation_slices, pairs) if source.validation_slices else set()
    training = [p for p in pairs if p.z in used and not {p.z, p.reference_z} & held]
    training = [replace(p, rows=_rows_to_train(source, p)) for p in training]
    validation = [p for p in pairs if p.z in held]
    if source.validation_rows:
        whole = validation if source.validation_slices else pairs
        validation = [replace(p, rows=_rows(source.validation_rows, p)) for p in whole]
    return training, validation


def _split_by_share(pairs: Sequence[Pair], share: float, crop_hr: int, scale: int) -> tuple[list[Pair], list[Pair]]:
    """Hold back a share: files where there are several, else the last slices; rows of too few slices."""
    least = round(0.5 / share)  # fewer have none to spare
    files = list(dict.fromkeys(p.origin.path for p in pairs))
    if len(files) >= least:
        every = round(1 / share)
        chosen = {path for number, path in enumerate(files) if number % every == min(every, len(files)) // 2}
        held = [p for p in pairs if p.origin.path in chosen]
    else:
        held = []
        for path in files:
            own = [p for p in pairs if p.origin.path == path]
            if len(own) >= least:
                held += own[-max(1, round(share * len(own))) :]
    if held:
        places = set().union(*(p.places for p in held))
        return [p for p in pairs if not p.places & places], held
    training = []
    for p in pairs:
        first, last = p.rows
        rows = max(crop_hr, math.ceil(share * (last - first)))
        # whole LR pixels on both sides
        middle = max(first, (last - rows) // scale * scale)
        training.append(replace(p, rows=(first, middle)))
        held.append(replace(p, rows=(middle, last)))
    return training, held


def _indices(text: str, pairs: Sequence[Pair]) -> set[int]:
    start, stop = parse_slices(text)
    depth = max(max(p.z, p.reference_z) for p in pairs) + 1
    return set(range(start or 0, depth if stop is None else min(stop, depth)))


def _rows(text: str, pair: Pair) -> tuple[int, int]:
    start, stop = parse_slices(text)
    height = pair.reference.shape[1]
    return start or 0, height if stop is None else min(stop, height)


def _rows_to_train(source: Source, pair: Pair) -> tuple[int, int]:
    """Return the rows to train on: those asked for, except those held back."""
    first, last = _rows(source.rows, pair)
    if source.validation_rows is None or source.validation_slices is not None:
        return first, last
    held_first, held_last = _rows(source.validation_rows, pair)
    if held_last <= first or last <= held_first:
        return first, last
    if held_first > first and held_last < last:
        raise UsageError(
            f"validation_rows {source.validation_rows} lie in the middle of rows {source.rows} of "
            f"{pair.reference.path}; give rows above or below them"
        )
    return (first, held_first) if held_first > first else (min(held_last, last), last)

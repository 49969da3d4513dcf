"""The input's pixel size compared with that of the model's training: noted, refused, corrected, or resampled."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from emsr_fast.errors import UsageError
from emsr_fast.io.pixel_size_advice import loses_detail, loss, remedies
from emsr_fast.io.resample import ResampledSource
from emsr_fast.io.volume import SourceVolume
from emsr_fast.wording import quoted
from emsr_fast.wording import sizes as in_words

LARGEST_MISMATCH = 0.15  # beyond this a model sees structures of a size that its training never showed
TrainedSizes = Sequence[float | tuple[float, float]]  # nm: sizes, and ranges in which every size counts
_SAME = 1e-3  # sizes come from rounded headers: closer than this they are the same
_SAME_SIZE = 0.0005  # a mismatch that prints as 0.0 %


@dataclass(frozen=True)
class InputVoxel:
    """The setting ``input_voxel``: resample from ``sizes_nm`` (the file's own if None), or do not resample."""

    resample: bool
    sizes_nm: tuple[float, float] | None = None  # y, x


def parse_input_voxel(text: str | None) -> InputVoxel | None:
    """Return the setting ``input_voxel`` from "50" or "50,48" (y, x in nm), "file" or "ignore"; None if not given.

    Raises:
        UsageError: something else, or sizes that are not positive.
    """
    if text is None:
        return None
    if text in ("file", "ignore"):
        return InputVoxel(resample=text == "file")
    try:
        sizes = [float(size) for size in text.split(",")]
    except ValueError:
        sizes = []
    if len(sizes) not in (1, 2) or not all(math.isfinite(size) and size > 0 for size in sizes):
        raise UsageError(
            f"`input_voxel` is {quoted(text)}; give the input's pixel size in nm, such as 50, or Y,X such as 50,48, "
            "or file to take the file's, or ignore to run without resampling"
        )
    return InputVoxel(resample=True, sizes_nm=(sizes[0], sizes[-1]))


def fit_to_model(
    source: SourceVolume,
    trained_nm: TrainedSizes,
    model: str,
    choice: InputVoxel | None,
    say: Callable[[str], None] = lambda line: None,
    remedy: str | None = None,
) -> SourceVolume:
    """Return ``source``; if chosen, resampled in y and x to the nearest pixel size that the model was trained on.

    Args:
        source: with the voxel size that the file states, if any.
        trained_nm: LR pixel sizes the model was trained on, from its card, and ranges of them; may be empty.
        model: its name, for messages.
        choice: from ``parse_input_voxel``; with None a mismatch above 15 % is refused.
        say: called with each line about the decision.
        remedy: the advice if it is refused; by default the command's choices, each with its cost.

    Raises:
        UsageError: the sizes do not match and nothing was chosen, or a size to resample from or to is unknown.
    """
    stated = source.info.voxel_size_nm[1:]
    sizes = choice.sizes_nm if choice and choice.sizes_nm else stated
    trained = f"{model} was trained on input pixels of {in_words(trained_nm)} nm"
    if choice and choice.resample:
        if not trained_nm:
            raise UsageError(f"{model} does not state the pixel size that it was trained on; leave `input_voxel` out")
        if sizes[0] is None or sizes[1] is None:
            raise UsageError(f"{source.info.path} does not state its pixel size; give it in nm: `input_voxel=50`")
        return _resampled(source, (sizes[0], sizes[1]), trained_nm, say)
    if not trained_nm:
        return source
    known = [size for size in stated if size is not None]
    if not known:
        say(f"note    the input's pixel size is unknown; {trained}")
        return source
    # both sides against one size: the network saw square pixels
    middle = math.exp(sum(map(math.log, known)) / len(known))
    worst = min(max(_mismatch(size, other) for size in known) for other in _candidates(middle, trained_nm))
    if worst > LARGEST_MISMATCH * (1 + _SAME):
        sides = " x ".join("unknown" if side is None else f"{side:g}" for side in stated)
        figures = (
            f"input pixels are {sides} nm, {trained}: a mismatch of {100 * worst:.0f} %, "
            f"allowed is {100 * LARGEST_MISMATCH:.0f} %"
        )
        if choice is None:
            target = _nearest(middle, trained_nm)
            raise UsageError(f"{figures}; {remedy or remedies(stated, target)}")
        say(f"note    {figures}; ignored as asked")
    else:
        exact = worst < _SAME_SIZE
        near = f"{known[0]:g} nm is a size that {model} was trained on" if exact else trained
        say(f"note    {near}{'' if exact else f'; the input is within {100 * worst:.1f} % of one of them'}")
    return source


def _resampled(
    source: SourceVolume, sizes: tuple[float, float], trained_nm: TrainedSizes, say: Callable[[str], None]
) -> SourceVolume:
    # one size for both: the network saw square pixels
    target = _nearest(math.sqrt(sizes[0] * sizes[1]), trained_nm)
    z = source.info.voxel_size_nm[0]
    if all(_mismatch(size, target) <= _SAME for size in sizes):
        say(f"note    input pixels of {target:g} nm are what the model was trained on: not resampled")
        return RelabelledSource(source, (z, *sizes))
    result = ResampledSource(source, sizes, target)
    for note in result.info.notes[len(source.info.notes) :]:
        say(f"note    {note}")
    if loses_detail(sizes, target):
        say(f"warning resampling from {loss(sizes, target)}; `input_voxel=ignore` keeps the detail")
    return result


def _candidates(size: float, trained_nm: TrainedSizes) -> list[float]:
    """Return the sizes of the training that ``size`` is compared with; of a range, the one nearest to it."""
    return [min(max(size, one[0]), one[1]) if isinstance(one, tuple) else one for one in trained_nm]


def _nearest(size: float, trained_nm: TrainedSizes) -> float:
    return min(_candidates(size, trained_nm), key=lambda other: _mismatch(size, other))


def _mismatch(one: float, other: float) -> float:
    return max(one / other, other / one) - 1


class RelabelledSource(SourceVolume):
    """A source whose pixel size the user stated."""

    def __init__(self, source: SourceVolume, voxel_size_nm: tuple[float | None, float | None, float | None]) -> None:
        self._source = source
        self.info = replace(source.info, voxel_size_nm=voxel_size_nm, voxel_size_from="`input_voxel`")

    def read(self, z: int, rows: slice, cols: slice) -> np.ndarray:
        """Return pixels of slice ``z``, (rows, cols)."""
        return self._source.read(z, rows, cols)

    def close(self) -> None:
        """Close the source."""
        self._source.close()

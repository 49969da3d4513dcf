"""Coarse search for a small image in a large one: normalised cross-correlation by Fourier transforms, in blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft

_BLOCK = 1024  # px, the side of what is transformed at once unless the template needs more
_FLAT = 1e-4  # share of the field's variance below which a window counts as flat: nothing can be found in it


@dataclass(frozen=True)
class Hit:
    """A place where a template fits."""

    ncc: float
    row: int  # of the template's first pixel in the field
    col: int
    template: int  # its number


def coarse_search(field: np.ndarray, templates: Sequence[np.ndarray], count: int) -> list[Hit]:
    """Return the ``count`` best places, best first and apart from each other by a quarter of a template.

    Args:
        field: (H, W) float32.
        templates: several turned and scaled versions of one image, all of one shape, not larger than ``field``.

    Source: J. P. Lewis, Fast normalized cross-correlation, Vision Interface 1995. It needs the memory of a few blocks
    of 1024 px (or twice the template) for any size of ``field``.
    """
    height, width = templates[0].shape
    if height > field.shape[0] or width > field.shape[1]:
        return []
    normal = [_normal(template) for template in templates]
    least = _FLAT * float(field.var())
    size = tuple(
        fft.next_fast_len(min(max(_BLOCK, 2 * side), whole + side), real=True)
        for side, whole in zip((height, width), field.shape, strict=True)
    )
    hits: list[Hit] = []
    for top in range(0, field.shape[0] - height + 1, size[0] - height + 1):
        for left in range(0, field.shape[1] - width + 1, size[1] - width + 1):
            block = field[top : top + size[0], left : left + size[1]]
            best, which = _best_of(block, normal, size, least)
            hits += _peaks(best, which, top, left, (height // 4, width // 4), count)
    return _apart(hits, (height // 4, width // 4), count)


def _normal(template: np.ndarray) -> np.ndarray:
    centred = template - template.mean()
    norm = float(np.linalg.norm(centred))
    return centred / norm if norm > 0 else centred


def _best_of(
    block: np.ndarray, templates: Sequence[np.ndarray], size: tuple[int, ...], least: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each place of a template wholly inside ``block``, the largest NCC and the template that has it."""
    height, width = templates[0].shape
    rows, cols = block.shape[0] - height + 1, block.shape[1] - width + 1
    spectrum = fft.rfft2(block, size)
    count = height * width
    sums, squares = (_window_sums(values, height, width) for values in (block, block.astype(np.float64) ** 2))
    power = squares - sums**2 / count
    # noise of rounding in a flat window must not look like structure
    scale = np.where(power > least * count, 1 / np.sqrt(np.maximum(power, least * count)), 0).astype(np.float32)
    best = np.full((rows, cols), -np.inf, dtype=np.float32)
    which = np.zeros((rows, cols), dtype=np.int32)
    for number, template in enumerate(templates):
        product = fft.irfft2(spectrum * np.conj(fft.rfft2(template, size)), size)[:rows, :cols] * scale
        better = product > best
        best[better] = product[better]
        which[better] = number
    return best, which


def _window_sums(values: np.ndarray, height: int, width: int) -> np.ndarray:
    total = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
    np.cumsum(np.cumsum(values, axis=0, dtype=np.float64), axis=1, out=total[1:, 1:])
    sums: np.ndarray = (
        total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    )
    return sums


def _peaks(best: np.ndarray, which: np.ndarray, top: int, left: int, apart: tuple[int, int], count: int) -> list[Hit]:
    best, hits = best.copy(), []
    for _ in range(count):
        row, col = (int(i) for i in np.unravel_index(int(best.argmax()), best.shape))
        if best[row, col] <= 0:
            break
        hits.append(Hit(float(best[row, col]), top + row, left + col, int(which[row, col])))
        best[max(0, row - apart[0]) : row + apart[0] + 1, max(0, col - apart[1]) : col + apart[1] + 1] = -np.inf
    return hits


def _apart(hits: Sequence[Hit], apart: tuple[int, int], count: int) -> list[Hit]:
    kept: list[Hit] = []
    for hit in sorted(hits, key=lambda hit: -hit.ncc):
        if all(abs(hit.row - k.row) > apart[0] or abs(hit.col - k.col) > apart[1] for k in kept):
            kept.append(hit)
    return kept[:count]

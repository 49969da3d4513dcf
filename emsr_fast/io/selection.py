"""Parses settings that are text: memory, regions, slices, shares."""

from __future__ import annotations

from emsr_fast.errors import UsageError
from emsr_fast.wording import quoted

ZYX = tuple[int, int, int]  # a number for each axis: a shape, a block, an index
Span = tuple[int, int]  # from, to before

_MOST_DIGITS = 18  # more count nothing, and Python refuses to read thousands


def whole_number(text: str) -> int | None:
    """Return the number in ``text``; None if it is not one of at most 18 digits and nothing else."""
    return int(text) if len(text) <= _MOST_DIGITS and text.isascii() and text.isdigit() else None


def parse_slices(text: str) -> tuple[int | None, int | None]:
    """Return the two ends of "a:b", None where one is left out.

    Raises:
        UsageError: another form, a negative number, or b not above a.
    """
    first, colon, last = text.partition(":")
    advice = "give a:b, from slice a to before slice b counted from 0, such as 10:20, 10: or :20"
    start, stop = whole_number(first), whole_number(last)
    if not colon or (first and start is None) or (last and stop is None):
        raise UsageError(f"`slices` is {quoted(text)}; {advice}")
    if stop is not None and stop <= (start or 0):
        raise UsageError(f"`slices` is {quoted(text)}, which has no slice in it; {advice}")
    return start, stop


def choose_slices(start: int | None, stop: int | None, depth: int) -> range:
    """Return the slices from ``start`` to before ``stop`` of a volume with ``depth`` of them.

    Raises:
        UsageError: the volume has fewer.
    """
    chosen = range(start or 0, depth if stop is None else stop)
    if chosen.start >= depth or chosen.stop > depth:
        asked = f"{'' if start is None else start}:{'' if stop is None else stop}"
        raise UsageError(f"`slices` {asked} reach beyond the volume, which has slices 0 to {depth - 1}; give fewer")
    return chosen


def parse_share(text: str | None) -> tuple[int, int]:
    """Return (i, N), i counted from 0, for "i/N", i counted from 1; all of it, (0, 1), for None.

    Raises:
        UsageError: another form, or i not among 1 to N.
    """
    if text is None:
        return 0, 1
    first, slash, last = text.partition("/")
    number, count = whole_number(first), whole_number(last)
    if slash and number is not None and count is not None and 1 <= number <= count:
        return number - 1, count
    raise UsageError(f"`shard` is {quoted(text)}; give i/N with i from 1 to N, such as 3/16")


def parse_memory(text: str) -> int:
    """Return the bytes of "4GB", "800 MB" or "2GiB".

    Raises:
        UsageError: another form, or nothing.
    """
    units = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}
    number = text.strip().lower()
    unit = next((unit for unit in sorted(units, key=len, reverse=True) if number.endswith(unit)), "")
    try:
        found = float(number.removesuffix(unit)) * units.get(unit, 0)
    except ValueError:
        found = 0.0
    if not 1 <= found < float("inf"):
        raise UsageError(f"`max_memory` is {quoted(text)}; give a size with its unit, such as 1.5GB or 800MB")
    return int(found)


def parse_roi(text: str, shape: ZYX) -> tuple[Span, Span, Span]:
    """Return the region "z,y,x:z,y,x" of a volume of ``shape``, from the first corner to before the second.

    Raises:
        UsageError: another form, an empty region, or one that reaches beyond the volume.
    """
    advice = "give z,y,x:z,y,x in input voxels, from the first corner to before the second, such as 0,0,0:16,512,512"
    corners = [corner.split(",") for corner in text.split(":")]
    found = [whole_number(number.strip()) for corner in corners for number in corner]
    values = [number for number in found if number is not None]
    if [len(corner) for corner in corners] != [3, 3] or len(values) != 6:
        raise UsageError(f"`roi` is {quoted(text)}; {advice}")
    region = tuple(zip(values[:3], values[3:], strict=True))
    if any(stop <= start for start, stop in region):
        raise UsageError(f"`roi` {quoted(text)} is empty; {advice}")
    if any(stop > side for (_, stop), side in zip(region, shape, strict=True)):
        sides = " x ".join(map(str, shape))
        raise UsageError(f"`roi` {quoted(text)} reaches beyond the volume, {sides} (Z, Y, X); {advice}")
    return region[0], region[1], region[2]

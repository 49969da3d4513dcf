"""Parses settings that are text: memory, regions, slices, shares."""

from __future__ import annotations

from emsr_fast.errors import UsageError

ZYX = tuple[int, int, int]  # a number for each axis: a shape, a block, an index
Span = tuple[int, int]  # from, to before


def parse_slices(text: str) -> tuple[int | None, int | None]:
    """Return the two ends of "a:b", None where one is left out.

    Raises:
        UsageError: another form, a negative number, or b not above a.
    """
    first, colon, last = text.partition(":")
    advice = "give a:b, from slice a to before slice b counted from 0, such as 10:20, 10: or :20"
    if not colon or any(end and not (end.isascii() and end.isdigit()) for end in (first, last)):
        raise UsageError(f"`slices` is {text!r}; {advice}")
    start, stop = (int(end) if end else None for end in (first, last))
    if stop is not None and stop <= (start or 0):
        raise UsageError(f"`slices` is {text!r}, which has no slice in it; {advice}")
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
    if slash and all(end.isascii() and end.isdigit() for end in (first, last)) and 1 <= int(first) <= int(last):
        return int(first) - 1, int(last)
    raise UsageError(f"`shard` is {text!r}; give i/N with i from 1 to N, such as 3/16")


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
        raise UsageError(f"`max_memory` is {text!r}; give a size with its unit, such as 1.5GB or 800MB")
    return int(found)


def parse_roi(text: str, shape: ZYX) -> tuple[Span, Span, Span]:
    """Return the region "z,y,x:z,y,x" of a volume of ``shape``, from the first corner to before the second.

    Raises:
        UsageError: another form, an empty region, or one that reaches beyond the volume.
    """
    advice = "give z,y,x:z,y,x in input voxels, from the first corner to before the second, such as 0,0,0:16,512,512"
    corners = [corner.split(",") for corner in text.split(":")]
    numbers = [number.strip() for corner in corners for number in corner]
    if [len(corner) for corner in corners] != [3, 3] or not all(n.isascii() and n.isdigit() for n in numbers):
        raise UsageError(f"`roi` is {text!r}; {advice}")
    values = [int(number) for number in numbers]
    region = tuple(zip(values[:3], values[3:], strict=True))
    if any(stop <= start for start, stop in region):
        raise UsageError(f"`roi` {text!r} is empty; {advice}")
    if any(stop > side for (_, stop), side in zip(region, shape, strict=True)):
        raise UsageError(f"`roi` {text!r} reaches beyond the volume, {' x '.join(map(str, shape))} (Z, Y, X); {advice}")
    return region[0], region[1], region[2]

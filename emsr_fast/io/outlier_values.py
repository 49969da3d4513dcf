"""Grey values that are no image, such as hot pixels and marks of absent data: an empty gap is before them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# a gap counts where it is wider than so many times the central 99 % of the rest, and than so many times all of it
_TIMES_CENTRE = 10
_TIMES_ALL = 2
_CENTRE = 0.99
# a larger share may be image: it is not left out, only told
_LARGEST_SHARE = 0.1
# a background of fewer different values is no image that the others could be apart from
_LEAST_DIFFERENT = 16


@dataclass(frozen=True)
class OutlierValues:
    """Samples with very low or high values, far from all the others."""

    low: np.ndarray  # sorted, as the others
    rest: np.ndarray
    high: np.ndarray

    @property
    def count(self) -> int:
        """How many samples are apart."""
        return self.low.size + self.high.size

    @property
    def left_out(self) -> bool:
        """Whether they are left out: they are so few that they are taken for no image."""
        return self.count <= _LARGEST_SHARE * (self.count + self.rest.size)

    def told(self) -> str:
        """Return in words which values are apart, what is assumed, and what to do if it is wrong."""
        total = self.count + self.rest.size
        least, most = self.rest[0], self.rest[-1]
        named = " and ".join(_span(values) for values in (self.low, self.high) if values.size)
        found = (
            f"{self.count} of {total} sampled pixels ({100 * self.count / total:.2g} %) are {named}, far from the "
            f"others at {_span(self.rest)}"
        )
        if self.left_out:
            return (
                f"{found}: taken for hot pixels or marks of absent data and left out of the grey range; if they are "
                "image, give `intensity_range=LO:HI`"
            )
        given = f"`intensity_range={least:.7g}:{most:.7g}`"
        return f"{found}: taken for image, being many; if they mark absent data, give {given}"


def outlier_values(values: np.ndarray) -> OutlierValues | None:
    """Return the samples that are far from all the others; None if there are none.

    The search starts from the densest half of the values and goes outwards. The image ends at the first empty gap that
    is both wider than ten times the central 99 % of the values before it, and wider than twice the range of all of
    them. The first condition keeps an ordinary image whole: its tails get thin, but have no such gap. The second keeps
    small bright features: pixels at their edges have values between, so the gaps stay small. Hot pixels, and marks such
    as -9999 or 65535, have nothing between. Padding of 0 beside tissue of 20000 .. 40000 is kept: the gap is as wide
    as the range of the tissue.

    Args:
        values: sorted, float64, finite; at least one.
    """
    half = (values.size + 1) // 2
    first = int(np.argmin(values[half - 1 :] - values[: values.size - half + 1]))
    last = first + half - 1
    needed = _needed(values, first, last)
    # where half of it is one value, that is a background, and the rest the image
    if values[first] == values[last] or values[-1] - values[0] <= needed:
        return None
    gaps = np.diff(values)
    wide = np.flatnonzero(gaps > needed)
    below, above = wide[wide < first][::-1], wide[wide >= last]
    while True:
        needed = _needed(values, first, last)
        lower = next((int(at) + 1 for at in below if at < first and gaps[at] > needed), 0)
        upper = next((int(at) for at in above if at >= last and gaps[at] > needed), values.size - 1)
        if (lower, upper) == (first, last):
            break
        first, last = lower, upper
    found = OutlierValues(values[:first], values[first : last + 1], values[last + 1 :])
    different = np.count_nonzero(gaps[first:last]) + 1
    return found if found.count and different >= _LEAST_DIFFERENT else None


def _needed(values: np.ndarray, first: int, last: int) -> float:
    aside = int((1 - _CENTRE) / 2 * (last - first + 1))
    centre, whole = values[last - aside] - values[first + aside], values[last] - values[first]
    return float(max(_TIMES_CENTRE * centre, _TIMES_ALL * whole))


def _span(values: np.ndarray) -> str:
    least, most = values[0], values[-1]
    return f"{least:.7g}" if least == most else f"{least:.7g} .. {most:.7g}"

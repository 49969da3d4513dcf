"""The choices where the input's pixels have another size than the model's, and the cost of each."""

from __future__ import annotations

from collections.abc import Sequence

_SAME = 1e-3  # a target coarser by less loses nothing that anybody sees


def loses_detail(sizes_nm: Sequence[float], target_nm: float) -> bool:
    """Return whether pixels of ``target_nm`` are coarser than ``sizes_nm`` (y, x) along an axis."""
    return any(target_nm > size * (1 + _SAME) for size in sizes_nm)


def loss(sizes_nm: tuple[float, float], target_nm: float) -> str:
    """Return in words what resampling pixels of ``sizes_nm`` (y, x) to coarser ones of ``target_nm`` costs."""
    y, x = sizes_nm
    return (
        f"{y:g} x {x:g} nm to {target_nm:g} nm discards detail: {_pixels(sizes_nm, target_nm)}, and the result can be "
        "worse than bicubic interpolation of the input"
    )


def remedies(stated_nm: Sequence[float | None], target_nm: float) -> str:
    """Return the choices of the command, each with its cost; the one that loses least comes first.

    Args:
        stated_nm: the input's pixel size (y, x); None where the file does not state it.
        target_nm: what it would be resampled to.
    """
    ignore = (
        "`input_voxel=ignore` runs on the pixels as they are: keeps their detail, but the model never saw this size"
    )
    others = ["`input_voxel=NM` if the file is wrong", "another `model`"]
    y, x = stated_nm
    if y is None or x is None:
        choices = [ignore, *others]
    elif loses_detail((y, x), target_nm):
        choices = [ignore, *others, f"`input_voxel=file` last: resampling from {loss((y, x), target_nm)}"]
    else:
        gained = _pixels((y, x), target_nm)
        choices = [f"`input_voxel=file` interpolates to {target_nm:g} nm: {gained} and so much time", ignore, *others]
    return f"choose: {'; '.join(choices)}"


def _pixels(sizes_nm: tuple[float, float], target_nm: float) -> str:
    y, x = sizes_nm
    ratio = y * x / target_nm**2
    return f"{ratio:.2g} times the pixels"

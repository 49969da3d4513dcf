"""What of an unfinished volume is not as a process of the run wrote it: it is removed, and done again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from emsr_fast.errors import VolumeError
from emsr_fast.infer.parts import FOLDERS, to_start_anew
from emsr_fast.infer.plan import Plan
from emsr_fast.infer.workfolder import WorkFolder
from emsr_fast.infer.written import sum_as_text
from emsr_fast.io.selection import ZYX
from emsr_fast.io.writers.ome_zarr import Pyramid
from emsr_fast.wording import counted, listed

_NAMED = 3  # blocks in a message


def drop_damaged(
    work: WorkFolder,
    plan: Plan,
    volume: Pyramid,
    maps: Mapping[str, Pyramid],
    done: Sequence[int],
    say: Callable[[str], None],
) -> list[int]:
    """Remove those of the blocks ``done`` that are damaged, and damaged files of the levels above them; return these.

    Args:
        maps: of trust, by name: a block is whole where they are, too.
    """
    work.files.look_again()
    pyramids = (volume, *maps.values())
    damaged: dict[int, Path] = {}
    files = (
        (number, path)
        for number in done
        for pyramid in pyramids
        for path in pyramid.files(0, plan.block_at(number).index)
    )
    for number, path, found in work.files.hashes_of(files):
        if found is None:
            damaged.setdefault(number, path)
    for pyramid in pyramids:
        _drop_above(work, pyramid, (plan.block_at(number).index for number in done))
    for index in (plan.block_at(number).index for number in damaged):
        for pyramid in pyramids:
            pyramid.forget(index)
        work.marks.forgive(index)
    if damaged:
        named = listed([str(path.relative_to(work.path)) for path in damaged.values()], _NAMED)
        say(
            f"note    {counted(len(damaged), 'block')} not as written (missing, cut, changed, or a copy of another), "
            f"to be done again: {named}"
        )
    return list(damaged)


def _drop_above(work: WorkFolder, pyramid: Pyramid, below: Iterable[ZYX]) -> None:
    """Remove damaged files of the levels above the blocks ``below``, and what was made of them; all are made again."""
    places = {place for index in below for place in pyramid.above(index)}
    files = ((place, path) for place in sorted(places) if pyramid.has(*place) for path in pyramid.files(*place))
    for (level, index), _, found in work.files.hashes_of(files):
        if found is None:
            pyramid.forget(index, level)


def check_whole(work: WorkFolder, metadata: Iterable[Path]) -> None:
    """Raise VolumeError where the folder of a run has lost a part, or the files ``metadata`` are not as written."""
    work.files.look_again()
    for path in (*(work.path / name for name in FOLDERS), *metadata):
        whole = path.is_dir() if path.parent == work.path else work.files.hash_of(path) is not None
        if not whole:
            what = "is damaged, or was changed since it was written" if path.exists() else "is gone"
            raise VolumeError(f"{path} {what}; {to_start_anew(work.path)}")


def checksums(work: WorkFolder, pyramids: Mapping[str, Pyramid]) -> dict[str, str]:
    """Return a checksum of the files of each level, by its path in the volume; see ``written.sum_as_text``.

    Raises:
        VolumeError: a file was damaged only now.
    """
    work.files.look_again()
    sums = {}
    for prefix, pyramid in pyramids.items():
        for number, level in enumerate(pyramid.levels):
            total = 0
            files = ((None, path) for index in level.indices() for path in pyramid.files(number, index))
            for _, path, found in work.files.hashes_of(files):
                if found is None:
                    raise VolumeError(f"{path} was changed while the output was completed; repeat the command")
                total += found
            sums[f"{prefix}{number}"] = sum_as_text(total)
    return sums

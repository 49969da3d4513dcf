"""The end of a run: check for missing and failed slices, write upper levels and other formats, give the final name."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import zarr

from emsr_fast.errors import PartialError
from emsr_fast.infer.run import Run
from emsr_fast.infer.trust_maps import map_path, map_spec
from emsr_fast.infer.workfolder import WorkFolder
from emsr_fast.io.destination import system_errors
from emsr_fast.io.registry import create_target
from emsr_fast.io.volume import TargetSpec
from emsr_fast.io.writers.ome_zarr import DurableStore, Pyramid
from emsr_fast.publish import Check
from emsr_fast.wording import are, counted, listed, without_folders

_NAMED = 5  # slices or blocks in a message


def note_bounded(work: WorkFolder, run: Run, say: Callable[[str], None]) -> int:
    """Return how many input pixels of the finished blocks were bounded; say so if there are any."""
    pixels = work.marks.bounded_pixels()
    if pixels:
        resampled = "resampled" in run.output.provenance
        say(f"note    {run.normalisation.told_bounded(pixels, resampled=resampled)}")
    return pixels


def complete(
    work: WorkFolder,
    run: Run,
    volume: Pyramid,
    maps: Mapping[str, Pyramid],
    ours: range,
    *,
    retry: str,
    say: Callable[[str], None],
    check: Check,
    finish: bool = False,
) -> dict[str, Any]:
    """Publish the output if all of it is there; return whether it is, as part of a summary.

    Args:
        maps: of trust, by name.
        ours: the blocks of this process's share.
        retry: the command that continues the run.
        check: raises VolumeError unless a final name is free or may be replaced.
        finish: whether to complete the output although slices failed. They stay 0 and are listed in its metadata,
            and the caller ends with exit code 4. Missing blocks are then an error.

    Raises:
        PartialError: slices of this share failed, or ``finish`` is set and blocks are missing.
    """
    plan = run.plan
    failed = work.marks.failed()
    slices: dict[int, str] = {}
    for index, reasons in failed.items():
        if finish or plan.number_of(index) in ours:
            slices |= reasons
    written = work.marks.write_list(retry)
    missing = list(volume.missing(0))
    if missing and not work.exists():
        return {"complete": True}  # another process of the array job published it meanwhile
    if missing and finish:
        raise PartialError(
            f"{are(len(missing), 'block')} missing in {work.path}, the first is {missing[0]}; do them with: {retry}"
        )
    if slices and not finish:
        named = listed([f"slice {z}: {slices[z]}" for z in sorted(slices)], _NAMED, "; ")
        raise PartialError(
            f"{counted(len(slices), 'slice')} could not be done, listed in {written}: {named}; "
            f"correct the input and retry just those with: {retry}; or leave them 0 with `finish=True`"
        )
    if missing:
        say(f"note    blocks of other shares are missing; the last to finish completes {work.final}")
        return {"complete": False}
    if failed and not finish:
        say(f"note    slices of other shares failed, see {written}; they keep {work.final} from being completed")
        return {"complete": False}
    with system_errors(work.final), (work.path / "finish.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"note    another process is completing {work.final}")
            return {"complete": False}
        except OSError:
            pass  # no locks on this file system: the second to publish finds nothing left to rename
        _publish(work, run, volume, maps, slices, check)
    if slices:
        named = listed([str(z) for z in sorted(slices)], _NAMED)
        missing_slices = counted(len(slices), "slice")
        say(f"note    {missing_slices} could not be done: 0 in the output, listed in its metadata: {named}")
    return {"complete": True, "failed_slices": slices} if slices else {"complete": True}


def _publish(
    work: WorkFolder,
    run: Run,
    volume: Pyramid,
    maps: Mapping[str, Pyramid],
    failed: dict[int, str],
    check: Check,
) -> None:
    for pyramid in (*maps.values(), volume):
        pyramid.finish()
    more: dict[str, Any] = {"bounded_pixels": work.marks.bounded_pixels()}
    if failed:
        # who gets the output need not know where the input lies
        more["failed_slices"] = {str(z): without_folders(failed[z], run.inputs.path) for z in sorted(failed)}
    if work.halvings():
        more["tile_halved"] = work.halvings()
    if run.pyramid:
        group = zarr.open_group(DurableStore(work.volume, unfinished=work.unfinished), mode="r+")
        own: Any = group.attrs["emsr_fast"]
        group.attrs["emsr_fast"] = own | more
        work.publish(work.volume, check)
    else:
        folder = work.empty_export()
        spec = replace(run.output, provenance=run.output.provenance | more)
        beside: dict[Path, Path] = {}
        for name, pyramid in maps.items():
            final = map_path(work.final, name)
            beside[folder / final.name] = final
            _export(pyramid, map_spec(spec, name, run.plan), folder / final.name)
        _export(volume, spec, folder / work.final.name)
        work.publish(folder / work.final.name, check, beside)


def _export(volume: Pyramid, spec: TargetSpec, path: Path) -> None:
    """Write level 0 of ``volume`` in the format of ``path``, one block after another."""
    with create_target(path, spec) as target:
        for index in volume.levels[0].indices():
            z, rows, cols = volume.levels[0].place(index)
            for image, number in zip(volume.read(0, index), range(z.start, z.stop), strict=True):
                target.write(number, rows, cols, image)
        target.commit()

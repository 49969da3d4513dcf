"""The end of a run: check for missing and failed slices, write upper levels and other formats, give the final name."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import zarr

from emsr_fast.errors import PartialError, VolumeError
from emsr_fast.holding import check_lock
from emsr_fast.infer.damage import checksums, drop_damaged
from emsr_fast.infer.plan import Plan
from emsr_fast.infer.run import Run
from emsr_fast.infer.trust_maps import GROUP, map_path, map_spec
from emsr_fast.infer.worker import Worker, check_volume, open_volume
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
    worker: Worker | None,
    ours: range,
    *,
    shared: bool,
    retry: str,
    say: Callable[[str], None],
    check: Check,
) -> dict[str, Any]:
    """Publish the output if all of it is there; return whether it is, as part of a summary.

    Args:
        worker: computes blocks again that were damaged. None: complete the output although slices failed. They stay 0
            and are listed in its metadata, and the caller ends with exit code 4. Missing blocks are then an error.
        ours: the blocks of this process's share.
        shared: whether other processes may compute blocks of this output, and complete it.
        retry: the command that continues the run.
        check: raises VolumeError unless a final name is free or may be replaced.

    Raises:
        PartialError: slices of this share failed, or ``worker`` is None and blocks are missing.
        VolumeError: the folder was removed or damaged meanwhile, or the input changed.
    """
    try:
        return _complete(work, run, worker, ours, shared=shared, retry=retry, say=say, check=check)
    except VolumeError:
        if shared and _is_published(work):
            return {"complete": True}  # another process of the array job did it meanwhile
        raise


def _is_published(work: WorkFolder) -> bool:
    try:
        return work.final.exists() and (not work.exists() or work.published() is not None)
    except VolumeError:
        return not work.exists()


def _complete(
    work: WorkFolder,
    run: Run,
    worker: Worker | None,
    ours: range,
    *,
    shared: bool,
    retry: str,
    say: Callable[[str], None],
    check: Check,
) -> dict[str, Any]:
    plan = run.plan
    if not work.exists():
        raise VolumeError(f"{work.path} was removed during the run, and with it what was done; repeat the command")
    check_volume(work, run)
    volume, maps = open_volume(work, run) if worker is None else (worker.volume, worker.maps)
    lost = [] if worker is None else [number for number in ours if not worker.is_done(number)]
    if lost:
        raise VolumeError(
            f"{work.volume} has lost {counted(len(lost), 'block')} that this run had done, such as "
            f"{plan.block_at(lost[0]).index}: something else removed files; repeat the command to do it again"
        )
    slices = _failed_slices(work, plan, None if worker is None else ours, retry)
    missing = list(volume.missing(0))
    if missing and worker is None:
        raise PartialError(
            f"{are(len(missing), 'block')} missing in {work.path}, the first is {missing[0]}; do them with: {retry}"
        )
    if missing:
        say(f"note    blocks of other shares are missing; the last to finish completes {work.final}")
        return {"complete": False}
    if worker is not None and work.marks.failed():
        written = work.marks.list
        say(f"note    slices of other shares failed, see {written}; they keep {work.final} from being completed")
        return {"complete": False}
    check_lock(work.path / "finish.lock")
    with system_errors(work.final), (work.path / "finish.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"note    another process is completing {work.final}")
            return {"complete": False}
        except OSError:
            pass  # no locks on this file system: the second to publish finds nothing left to rename
        damaged = drop_damaged(work, plan, volume, maps, range(len(plan)), say)
        if damaged and worker is None:
            raise PartialError(f"{work.path} had {counted(len(damaged), 'damaged block')}; do them with: {retry}")
        if damaged and worker is not None:
            worker.run(damaged)
            _failed_slices(work, plan, range(len(plan)), retry)
        if worker is not None:
            worker.check_input(last=True)
        _publish(work, run, volume, maps, slices, check)
    if slices:
        named = listed([str(z) for z in sorted(slices)], _NAMED)
        missing_slices = counted(len(slices), "slice")
        say(f"note    {missing_slices} could not be done: 0 in the output, listed in its metadata: {named}")
    return {"complete": True, "failed_slices": slices} if slices else {"complete": True}


def _failed_slices(work: WorkFolder, plan: Plan, ours: range | None, retry: str) -> dict[int, str]:
    """Return the slices that failed, by number, and list them for people; raise PartialError for those of ``ours``."""
    slices: dict[int, str] = {}
    for index, reasons in work.marks.failed().items():
        if ours is None or plan.number_of(index) in ours:
            slices |= reasons
    written = work.marks.write_list(retry)
    if slices and ours is not None:
        named = listed([f"slice {z}: {slices[z]}" for z in sorted(slices)], _NAMED, "; ")
        raise PartialError(
            f"{counted(len(slices), 'slice')} could not be done, listed in {written}: {named}; "
            f"correct the input and retry just those with: {retry}; or leave them 0 with `finish=True`"
        )
    return slices


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
        more["checksums"] = checksums(work, {"": volume} | {f"{GROUP}/{name}/": one for name, one in maps.items()})
        group = zarr.open_group(DurableStore(work.volume, work.files.write), mode="r+")
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

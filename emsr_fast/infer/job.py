"""The main job from path to path: what ``emsr-fast infer`` does, as a function."""

from __future__ import annotations

import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from emsr_fast.callbacks import Progress, Say
from emsr_fast.errors import Interrupted, PartialError, UsageError, VolumeError
from emsr_fast.infer.completion import complete, note_bounded
from emsr_fast.infer.damage import drop_damaged
from emsr_fast.infer.input_watch import InputWatch
from emsr_fast.infer.parts import strangers
from emsr_fast.infer.prepare import bytes_per_px, prepare
from emsr_fast.infer.request import Request
from emsr_fast.infer.run import Run
from emsr_fast.infer.statistics import Statistics
from emsr_fast.infer.tiles import ALIGNMENT, check_tiling
from emsr_fast.infer.trust_maps import create_maps, map_path
from emsr_fast.infer.worker import Worker, open_volume
from emsr_fast.infer.workfolder import WorkFolder
from emsr_fast.io.destination import check_destination, check_space, printable, resolved
from emsr_fast.io.formats import output_format, stored_dtype
from emsr_fast.io.locations import within
from emsr_fast.io.registry import open_source
from emsr_fast.io.selection import parse_memory, parse_share, parse_slices
from emsr_fast.io.writers.multiscale import VERSIONS
from emsr_fast.io.writers.ome_zarr import Put, Pyramid
from emsr_fast.model.config import check_window_fit
from emsr_fast.publish import Check, refuse_special
from emsr_fast.wording import counted, listed


def infer(
    input_path: str | Path,
    output_path: str | Path,
    *,
    say: Say = lambda line: None,
    progress: Progress = lambda lr_pixels: nullcontext(lambda done: None),
    **options: Any,
) -> dict[str, Any]:
    """Super-resolve the volume at ``input_path`` into a new one; return what was done, as JSON values.

    A run that was stopped or killed continues when it is called with the same arguments, and ends with the same bytes.

    Args:
        input_path: anything ``open_source`` reads.
        output_path: its suffix chooses the format. It appears when it is complete; until then there is OUTPUT.partial.
        say: called with each line about input, model and plan, before the work starts.
        progress: see ``Progress``.
        options: fields of ``Request``.

    Raises:
        UsageError: the arguments contradict each other or the input.
        VolumeError: the input cannot be read, the output cannot be written, or OUTPUT.partial is of another run.
        PartialError: slices could not be done, or blocks are missing.
        CheckpointError: the model file cannot be used.
        BackendError: the device or engine is not there, it failed its truth test, or the network failed on it.
    """
    return carry_out(Request(input_path, output_path, **options), say, progress)


def carry_out(request: Request, say: Say, progress: Progress) -> dict[str, Any]:
    """Do what ``infer`` does, for options that are a ``Request`` already."""
    # cheap checks first: torch takes seconds to load, a model longer
    share = _check(request)
    work = WorkFolder(resolved(request.output_path))
    try:
        summary = _infer(request, share, work, say, progress)
    except Interrupted as stop:
        stop.kept = work.path if work.exists() else None
        raise
    if summary.get("complete") and (kept := strangers(work.path)):
        say(f"note    {work.path} is kept: it holds {listed(kept, 3)}, which emsr-fast did not make")
    return summary


def _infer(request: Request, share: tuple[int, int], work: WorkFolder, say: Say, progress: Progress) -> dict[str, Any]:
    final = work.final
    work.tidy()
    work.check_place()
    if work.is_remains():
        work.remove()
    if work.exists() and (published := work.published()) is not None:
        run = work.run()
        work.remove()
        say(f"note    {final} was complete already; what a stopped run left beside it is removed")
        summary = _summary(final, run, Statistics(), resumed=len(run.plan), bounded=published.bounded_pixels)
        return summary | {"complete": True}
    check_destination(request.output_path, overwrite=request.overwrite, source=_container(request))
    if request.finish:
        return _finish_only(request, work, say)
    watch = InputWatch(request.input_path)
    with open_source(request.input_path, request.key, request.axes, request.channel, request.keep_data_bar) as stored:
        source, network, engine, run = prepare(request, work, stored, say)
        if request.dry_run:
            from emsr_fast.infer.estimate import estimate

            return estimate(run, source, engine, bytes_per_px(network, request.precision), say)
        run = _begin(request, work, run, say)
        with work.locked(alone=request.shard is None):
            try:
                worker = Worker(work, run, source, engine, network.card, watch, say)
                return _work(request, share, worker, run, say, progress)
            except PartialError:
                raise  # it says how to go on
            except BaseException:
                _leave(request, work, run, say)
                raise


def _check(request: Request) -> tuple[int, int]:
    """Return this process's share of the blocks, (i, N); raise UsageError if options contradict each other."""
    if request.trust and request.engine == "trt":
        raise UsageError("`trust` turns tiles, and engine trt takes tiles of fixed sides; give another `engine`")
    if request.engine != "torch" or request.precision is not None:
        from emsr_fast.engine import check_engine

        instead = request.retry(precision=None, provider=None, truth_test=None, engine="torch")
        check_engine(request.engine, request.precision, request.device, instead=instead)
    if request.tile is not None:
        check_tiling(request.tile, request.halo)
    check_tiling(ALIGNMENT, request.halo)
    parse_slices(request.slices)
    if request.roi is not None and request.slices != ":":
        raise UsageError("`slices` and `roi` are given together; give `roi` alone: its corners begin with slices")
    check_window_fit(request.window_fit)
    if request.ome_zarr not in VERSIONS:
        raise UsageError(f"`ome_zarr` is {request.ome_zarr!r}; give one of {', '.join(VERSIONS)}")
    if request.max_memory is not None:
        parse_memory(request.max_memory)
    if sum([request.dask is not None, request.shard is not None, request.finish]) > 1:
        raise UsageError("`dask`, `shard` and `finish` are given together; give one of them")
    return parse_share(request.shard)


def _begin(request: Request, work: WorkFolder, run: Run, say: Say) -> Run:
    """Make the work folder for ``run`` if there is none; return the run that was begun in it."""
    if work.exists():
        say(f"resume  {work.path}")
        return _begun_by_another(work, run)
    spec = run.output
    if not run.pyramid:
        for name in run.map_names:
            beside = map_path(work.final, name)
            refuse_special(beside)
            _free(request)(beside)
    # what is not compressed has a known size
    if output_format(work.final).name in ("TIFF", "MRC"):
        z, y, x = spec.shape
        itemsize = np.dtype(stored_dtype(work.final, spec.dtype.name)).itemsize
        check_space(work.final, z * y * x * (itemsize + len(run.map_names) * np.dtype(np.float32).itemsize))
    title = printable(work.final.name)

    def make_volume(path: Path, put: Put) -> None:
        Pyramid.create(path, spec, run.plan.shard, title=title, version=request.ome_zarr, pyramid=run.pyramid, put=put)
        create_maps(path, put, run)

    return run if work.create(run, make_volume) else _begun_by_another(work, run)


def _begun_by_another(work: WorkFolder, run: Run) -> Run:
    """Return the run in ``work`` that another process began: all follow its plan."""
    begun = work.run()
    begun.check_same(run.identity, work.path)
    return begun


def _container(request: Request) -> Path:
    return within(Path(request.input_path))[0]


def _free(request: Request) -> Check:
    """Return a check that raises VolumeError if the final name is taken."""
    return partial(check_destination, overwrite=request.overwrite, source=_container(request))


def _work(
    request: Request,
    share: tuple[int, int],
    worker: Worker,
    run: Run,
    say: Say,
    progress: Progress,
) -> dict[str, Any]:
    """Compute the blocks of this share, complete the output if it was the last share, and return the summary."""
    work, plan = worker.work, worker.plan
    part, parts = share
    ours = range(len(plan) * part // parts, len(plan) * (part + 1) // parts)
    for index in work.marks.failed():
        # what could not be done is tried again
        if plan.number_of(index) in ours:
            worker.forget(index)
            work.marks.forgive(index)
    done_before = [number for number in ours if worker.is_done(number)]
    if done_before:
        drop_damaged(work, plan, worker.volume, worker.maps, done_before, say)
    to_do = [number for number in ours if not worker.is_done(number)]
    if len(to_do) < len(ours):
        say(f"resume  {len(ours) - len(to_do)} of {len(ours)} blocks are done")
    worker.take_up(to_do)
    start = time.perf_counter()
    with progress(sum(map(worker.lr_pixels_to_do, to_do))) as done:
        if request.dask is not None:
            from emsr_fast.infer.distributed import run_on_dask

            statistics = run_on_dask(request.dask, worker, to_do, run.engine_options.device, say, done)
        else:
            statistics = worker.run(to_do, done)
    failed = work.marks.failed()
    if len(failed) == len(plan) and all(len(failed[index]) == plan.depth_at(index) for index in failed):
        # not one slice could be done: that is no partial result, but bad input
        work.remove()
        raise VolumeError(next(reason for slices in failed.values() for reason in slices.values()))
    wall_s = time.perf_counter() - start
    bounded = note_bounded(work, run, say)
    if statistics.padding:
        say(f"note    {counted(statistics.padding, 'input pixel')} of padding, large areas of nothing but 0, stay 0")
    summary = _summary(work.final, run, statistics, resumed=len(ours) - len(to_do), bounded=bounded, wall_s=wall_s)
    return summary | complete(
        work, run, worker, ours,
        shared=request.shard is not None, retry=request.retry(), say=say, check=_free(request),
    )  # fmt: skip


def _leave(request: Request, work: WorkFolder, run: Run, say: Say) -> None:
    """Say how to continue after an error, or remove the folder if no block is done."""
    if not work.exists():
        return
    volume, _ = open_volume(work, run)
    some = any(work.stopped.glob("*")) or any(volume.has(0, index) for index in volume.levels[0].indices())
    if request.shard is None and not some:
        work.remove()
    else:
        say(f"note    {work.path} holds what is done; go on with: {request.retry()}")


def _finish_only(request: Request, work: WorkFolder, say: Say) -> dict[str, Any]:
    if not work.exists():
        raise UsageError(f"there is nothing to finish: {work.path} does not exist")
    run = work.run()
    with work.locked(alone=True):
        blocks = range(len(run.plan))
        bounded = note_bounded(work, run, say)
        summary = _summary(work.final, run, Statistics(), resumed=len(blocks), bounded=bounded)
        # what goes on is the command that does blocks
        retry = request.retry(finish=None)
        return summary | complete(work, run, None, blocks, shared=False, retry=retry, say=say, check=_free(request))


def _summary(
    final: Path, run: Run, statistics: Statistics, *, resumed: int, bounded: int, wall_s: float = 0.0
) -> dict[str, Any]:
    spec = run.output
    hr_pixels = statistics.lr_pixels * spec.scale**2
    return {
        "output": str(final),
        "shape": list(spec.shape),
        "dtype": stored_dtype(final, spec.dtype.name),
        "voxel_size_nm": list(spec.voxel_size_nm),
        "slices": spec.shape[0],
        "blocks": statistics.blocks,
        "blocks_done_before": resumed,
        "lr_pixels": statistics.lr_pixels,
        "seconds": round(wall_s, 3),
        # of the time of all workers, where there are several
        "network_fraction": round(statistics.network_s / max(statistics.seconds, 1e-9), 4),
        "lr_mpx_per_s": round(statistics.lr_pixels / 1e6 / max(wall_s, 1e-9), 4),
        "padding_pixels": statistics.padding,  # of lr_pixels
        "bounded_pixels": bounded,  # of all blocks that are done, by whichever run
        "clipped_fraction": statistics.clipped / max(1, hr_pixels),
        "trust": {name: str(map_path(final, name)) for name in run.map_names},
        "settings": spec.provenance,
    }

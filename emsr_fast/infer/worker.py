"""A worker computes blocks of one work folder, in the process of the command or in a process of dask."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsr_fast.errors import VolumeError
from emsr_fast.infer.block_builder import FinishedBlock
from emsr_fast.infer.damage import check_whole
from emsr_fast.infer.engine_feed import TileTooLarge
from emsr_fast.infer.fingerprint import InputFingerprint, differences, of_input, of_model
from emsr_fast.infer.input_watch import InputWatch
from emsr_fast.infer.parts import to_throw_away
from emsr_fast.infer.pipeline import stream
from emsr_fast.infer.plan import Block, Plan, limit_reading
from emsr_fast.infer.run import NO_LIMIT, EngineOptions, Run, RunSettings
from emsr_fast.infer.statistics import Statistics
from emsr_fast.infer.stopped import StoppedBlocks
from emsr_fast.infer.trust_maps import map_metadata, open_maps
from emsr_fast.infer.workfolder import WorkFolder
from emsr_fast.io.destination import system_errors
from emsr_fast.io.pixel_size import fit_to_model, parse_input_voxel
from emsr_fast.io.registry import open_source
from emsr_fast.io.selection import ZYX, parse_memory
from emsr_fast.io.volume import SourceVolume
from emsr_fast.io.writers.multiscale import levels_of
from emsr_fast.io.writers.ome_zarr import Pyramid, metadata_files

if TYPE_CHECKING:
    from emsr_fast.engine import Engine
    from emsr_fast.model import Emsr, ModelCard


def load_network(model: str | Path | None, window_fit: str | None, options: EngineOptions) -> Emsr:
    """Return the network, where PyTorch runs it; takes seconds."""
    from emsr_fast.model import load_model
    from emsr_fast.model.zoo import DEFAULT_MODEL

    # the other engines need the network for its weights only, and to be judged by
    device = options.device if options.engine == "torch" else "cpu"
    return load_model(DEFAULT_MODEL if model is None else model, device=device, window_fit=window_fit)


def load_engine(
    network: Emsr, plan: Plan, options: EngineOptions, say: Callable[[str], None] = lambda line: None
) -> tuple[Engine, dict[str, Any] | None]:
    """Return the engine for the tiles of ``plan``, and its truth test's result if it had one."""
    from emsr_fast.convert.shapes import Shapes
    from emsr_fast.engine import open_engine

    shapes = None
    if plan.equal_reads:
        rows, cols = plan.read_sizes
        shapes = Shapes((1, rows[0], cols[0]), (1, rows[1], cols[1]), (1, rows[1], cols[1]))
    return open_engine(
        options.engine,
        network,
        shapes=shapes,
        precision=options.precision,
        device=options.device,
        provider=options.provider,
        truth=options.truth_test,
        say=say,
    )


class Worker:
    """Computes blocks of one work folder; holds its source, engine and volume open."""

    def __init__(
        self,
        work: WorkFolder,
        run: Run,
        source: SourceVolume,
        engine: Engine,
        card: ModelCard,
        watch: InputWatch,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Take what is open.

        Args:
            card: of the network.
            watch: of the input, made before ``source`` was opened.
            say: called with a line for the user.
        """
        self.work, self.source, self.engine = work, source, engine
        self._watch, self._known = watch, run.identity.input
        self._input_path, self._asked, self._card = run.inputs.path, run.identity.settings, card
        self._unsure: list[ZYX] = []  # blocks written since the last look at the input
        self.plan, self.spec = run.plan, run.output
        self.volume, self.maps = open_volume(work, run)
        self.stopped = StoppedBlocks(work.stopped, work.unfinished, run.identity.key, say)
        self._kept_px: dict[int, int] = {}
        self._say = say
        self._grey, self._trust = run.normalisation, run.trust

    @classmethod
    def open(cls, final: Path, device: str | None = None) -> Worker:
        """Return a worker for the output ``final``, everything loaded as its run says.

        Args:
            device: instead of the run's.

        Raises:
            VolumeError: the run cannot be read, or this machine has another model or input at its paths.
        """
        work = WorkFolder(final)
        run = work.run()
        inputs, asked, options = run.inputs, run.identity.settings, run.engine_options
        if device is not None:
            options = replace(options, device=device)
        network = load_network(inputs.model, inputs.window_fit, options)
        engine, _ = load_engine(network, run.plan, options)
        watch = InputWatch(inputs.path)
        source = open_input(inputs.path, asked, network.card)
        seen = replace(run.identity, model=of_model(network), input=of_input(source, run.normalisation))
        different = next(differences(asdict(run.identity), asdict(seen)), None)
        if different is not None:
            raise VolumeError(
                f"the model or input on this machine differs from the one that {work.path} was begun with: {different}"
            )
        return cls(work, run, source, engine, network.card, watch)

    def is_done(self, number: int) -> bool:
        """Return whether block ``number`` is written."""
        return self.volume.has(0, self.plan.block_at(number).index)

    def take_up(self, numbers: Iterable[int]) -> None:
        """Find the saved tiles of the blocks ``numbers``, say so, and remove what cannot be used."""
        plan, wanted = self._halved(self.work.halvings()), set(numbers)
        for index in self.stopped.indices():
            number = plan.number_of(index)
            if number not in wanted:
                continue
            started = self.stopped.load(index, plan)
            if started is None:
                self._say(f"note    what a stop kept of block {index} is damaged or of other tiles; it is done again")
                self.stopped.forget(index)
                continue
            tiles = [tile.pixels for tile in plan.tiles(plan.block_at(number))]
            self._kept_px[number] = int((started.done * tiles).sum())
            self._say(f"resume  {started.done.sum()} of {started.done.size} tiles of block {index} are done")

    def lr_pixels_to_do(self, number: int) -> int:
        """Return how many LR pixels of block ``number`` no earlier run had done when ``take_up`` looked."""
        return self.plan.block_at(number).lr_pixels - self._kept_px.get(number, 0)

    def forget(self, index: ZYX) -> None:
        """Remove what is written of the block at ``index``."""
        for volume in (self.volume, *self.maps.values()):
            volume.forget(index)

    def run(self, numbers: Iterable[int], progress: Callable[[int], None] | None = None) -> Statistics:
        """Compute those of the blocks ``numbers`` that are not done; return what was done.

        Where the engine runs out of memory on an automatic tile, its side is halved, for good, and the blocks that are
        not done begin anew.
        """
        numbers, statistics = list(numbers), Statistics()
        halvings = self.work.halvings()
        while True:
            plan = self._halved(halvings)
            try:
                stream(
                    self._to_do(numbers), self.source, self.engine, plan, self._grey, self.spec.dtype, self._write,
                    statistics=statistics, trust=self._trust, stopped=self.stopped, progress=progress,
                )  # fmt: skip
                self.check_input()
                return statistics
            except TileTooLarge:
                if plan.tile_is_given or plan.halved() == plan:
                    raise
                halvings += 1
                self.work.halve_once_more(halvings)
            except Exception:
                raise
            except BaseException:
                self._keep_of_one_input(numbers)
                raise

    def _halved(self, times: int) -> Plan:
        plan = self.plan
        for _ in range(times):
            plan = plan.halved()
        return plan

    def _to_do(self, numbers: Iterable[int]) -> Iterator[Block]:
        for number in numbers:
            block = self.plan.block_at(number)
            if not self.volume.has(0, block.index):
                yield block

    def check_input(self, *, last: bool = False) -> None:
        """Raise VolumeError where the input is another than when it was opened; what is made of that is removed.

        Args:
            last: whether there is no later look. Only then are the pixels of an input without times compared.
        """
        if self._watch.is_remote and not last:
            return
        what = self._watch.change(self._known, self._look_at_input)
        if what is not None:
            for index in self._unsure:
                self.forget(index)
                self.work.marks.forgive(index)
            folder = self.work.path
            raise VolumeError(
                f"{self._input_path} changed during the run: {what}; what {folder} holds is of the input as it was: "
                f"bring that back and repeat the command, or {to_throw_away(folder)}"
            )
        self._unsure.clear()

    def _keep_of_one_input(self, numbers: list[int]) -> None:
        """Raise VolumeError, and remove the tiles that a stop kept of the blocks ``numbers``, if the input changed."""
        try:
            self.check_input()
        except VolumeError:
            for number in numbers:
                self.stopped.forget(self.plan.block_at(number).index)
            raise

    def _look_at_input(self) -> InputFingerprint:
        with open_input(self._input_path, self._asked, self._card) as source:
            return of_input(source, self._grey)

    def _write(self, finished: FinishedBlock) -> None:
        index = finished.block.index
        # what was read before a look that finds no change is of the input as it was
        if self._watch.is_due():
            self.check_input()
        else:
            self._unsure.append(index)
        with system_errors(self.work.final):
            if finished.failed:
                # first the mark: nobody must take the zeros for an image
                self.work.marks.set_failed(index, finished.failed)
            self.work.marks.set_bounded(index, finished.bounded)
            # the maps first: that the volume's shard is there means that all of the block is
            for name, values in finished.maps.items():
                self.maps[name].write(0, index, values)
                self.maps[name].raise_above(index)
            self.volume.write(0, index, finished.pixels)
            self.volume.raise_above(index)
        self.stopped.forget(index)


def open_input(path: str, asked: RunSettings, card: ModelCard) -> SourceVolume:
    """Return the volume at ``path``, resampled if so asked."""
    source = open_source(path, asked.key, asked.axes, asked.channel, asked.keep_data_bar)
    source = fit_to_model(source, card.lr_pixel_nm, card.name, parse_input_voxel(asked.input_voxel))
    limit_reading(source, None if asked.max_memory == NO_LIMIT else parse_memory(asked.max_memory))
    return source


def open_volume(work: WorkFolder, run: Run) -> tuple[Pyramid, dict[str, Pyramid]]:
    """Return the volume of ``work`` and its maps of trust by name, open for writing.

    Raises:
        VolumeError: see ``check_volume``.
    """
    check_volume(work, run)
    levels = levels_of(run.output, run.plan.shard, run.ome_zarr, pyramid=run.pyramid)
    with system_errors(work.final):
        return Pyramid(work.volume, levels, work.files.write), open_maps(work.volume, work.files.write, run)


def check_volume(work: WorkFolder, run: Run) -> None:
    """Raise VolumeError where the folder has lost a part, or what says how the volume is stored is not as written."""
    levels = levels_of(run.output, run.plan.shard, run.ome_zarr, pyramid=run.pyramid)
    with system_errors(work.final):
        check_whole(work, (*metadata_files(work.volume, len(levels), run.ome_zarr), *map_metadata(work.volume, run)))

"""A station does blocks of one work folder: in the process of the command, or in a worker on another machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emsr_fast.errors import VolumeError
from emsr_fast.infer import fingerprint
from emsr_fast.infer.engine_feed import TileTooLarge
from emsr_fast.infer.pipeline import FinishedBlock, Outcome, stream
from emsr_fast.infer.plan import Block, Plan
from emsr_fast.infer.stopped import StoppedBlocks
from emsr_fast.infer.trust_maps import open_maps
from emsr_fast.infer.workfolder import WorkFolder
from emsr_fast.io.destination import system_errors
from emsr_fast.io.intensity import Normalisation
from emsr_fast.io.registry import open_source
from emsr_fast.io.resample import fit_to_model, parse_input_voxel
from emsr_fast.io.volume import SourceVolume, TargetSpec
from emsr_fast.io.writers.multiscale import Triple, levels_of
from emsr_fast.io.writers.ome_zarr import Pyramid
from emsr_fast.trust.maps import Trust

if TYPE_CHECKING:
    from emsr_fast.engine import Engine
    from emsr_fast.model import Emsr


@dataclass(frozen=True)
class Runner:
    """Who is to run the network: options of ``engine.open_engine``."""

    engine: str = "torch"
    precision: str | None = None
    provider: str = "auto"
    truth_test: bool = True
    device: str = "auto"


def load_network(model: str | Path | None, window_fit: str | None, runner: Runner) -> Emsr:
    """Return the network, where PyTorch runs it; takes seconds."""
    from emsr_fast.model import load_model
    from emsr_fast.model.zoo import DEFAULT_MODEL

    # the other engines need the network for its weights only, and to be judged by
    device = runner.device if runner.engine == "torch" else "cpu"
    return load_model(DEFAULT_MODEL if model is None else model, device=device, window_fit=window_fit)


def load_engine(
    network: Emsr, plan: Plan, runner: Runner, say: Callable[[str], None] = lambda line: None
) -> tuple[Engine, dict[str, Any] | None]:
    """Return the engine for the tiles of ``plan``, and its truth test's result if it had one."""
    from emsr_fast.engine import open_engine
    from emsr_fast.export.shapes import Shapes

    shapes = None
    if plan.equal_reads:
        rows, cols = plan.read_sizes
        shapes = Shapes((1, rows[0], cols[0]), (1, rows[1], cols[1]), (1, rows[1], cols[1]))
    return open_engine(
        runner.engine,
        network,
        shapes=shapes,
        precision=runner.precision,
        device=runner.device,
        provider=runner.provider,
        truth=runner.truth_test,
        say=say,
    )


class Station:
    """Source, engine and volume of one work folder, open."""

    def __init__(
        self,
        work: WorkFolder,
        journal: dict[str, Any],
        source: SourceVolume,
        engine: Engine,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.work, self.source, self.engine = work, source, engine
        self.plan = Plan.from_json(journal["plan"])
        self.spec = spec_from_json(journal["spec"])
        self.volume = open_volume(work, journal)
        self.maps = open_trust(work, journal)
        self.stopped = StoppedBlocks(work.stopped, work.unfinished, self.spec.provenance["run"], say)
        self._kept_px: dict[int, int] = {}
        self._say = say
        self._grey = Normalisation.from_metadata(journal["normalisation"])
        self._trust = None if journal.get("trust") is None else Trust.from_json(journal["trust"])

    @classmethod
    def open(cls, final: Path, device: str | None = None) -> Station:
        """Return a station for the output ``final``, everything loaded as its journal says.

        Args:
            device: instead of the journal's.

        Raises:
            VolumeError: the model or the input is not the one that the journal knows.
        """
        work = WorkFolder(final)
        journal = work.journal()
        runner = Runner(**journal["runner"])
        if device is not None:
            runner = replace(runner, device=device)
        network = load_network(journal["model"], journal["window_fit"], runner)
        engine, _ = load_engine(network, Plan.from_json(journal["plan"]), runner)
        source = fit_to_model(
            open_source(journal["input"], journal["key"], journal["axes"]),
            network.card.lr_pixel_nm, network.card.name, parse_input_voxel(journal["input_voxel"]),
        )  # fmt: skip
        grey = Normalisation.from_metadata(journal["normalisation"])
        seen = {"model": fingerprint.of_model(network), "input": fingerprint.of_input(source, grey)}
        different = list(fingerprint.differences({name: journal["identity"][name] for name in seen}, seen))
        if different:
            raise VolumeError(f"this machine sees something else than {work.path} was begun with: {different[0]}")
        return cls(work, journal, source, engine)

    @staticmethod
    def run_key(final: Path) -> str:
        """Return what tells the present run towards ``final`` from earlier ones."""
        return str(WorkFolder(final).journal()["spec"]["provenance"]["run"])

    def is_done(self, number: int) -> bool:
        """Return whether block ``number`` is written."""
        return self.volume.has(0, self.plan.block_at(number).index)

    def take_up(self, numbers: Iterable[int]) -> None:
        """Look what a stop kept of the blocks ``numbers``, say it, and remove what cannot be used."""
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

    def forget(self, index: Triple) -> None:
        """Remove what is written of the block at ``index``."""
        for volume in (self.volume, *self.maps.values()):
            volume.forget(index)

    def run(self, numbers: Iterable[int], progress: Callable[[int], None] | None = None) -> Outcome:
        """Do those of the blocks ``numbers`` that are not done; return what was done.

        Where the engine runs out of memory on an automatic tile, its side is halved, for good, and the blocks that are
        not done begin anew.
        """
        numbers, outcome = list(numbers), Outcome()
        halvings = self.work.halvings()
        while True:
            plan = self._halved(halvings)
            try:
                stream(
                    self._to_do(numbers), self.source, self.engine, plan, self._grey, self.spec.dtype, self._write,
                    outcome=outcome, trust=self._trust, stopped=self.stopped, progress=progress,
                )  # fmt: skip
                return outcome
            except TileTooLarge:
                if plan.tile_is_given or plan.halved() == plan:
                    raise
                halvings += 1
                self.work.halve_once_more(halvings)

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

    def _write(self, finished: FinishedBlock) -> None:
        index = finished.block.index
        with system_errors(self.work.final):
            if finished.failed:
                # first the mark: nobody must take the zeros for an image
                self.work.mark_failed(index, finished.failed)
            self.work.mark_bounded(index, finished.bounded)
            # the maps first: that the volume's shard is there means that all of the block is
            for name, values in finished.maps.items():
                self.maps[name].write(0, index, values)
                self.maps[name].raise_above(index)
            self.volume.write(0, index, finished.pixels)
            self.volume.raise_above(index)
        self.stopped.forget(index)


def open_volume(work: WorkFolder, journal: dict[str, Any]) -> Pyramid:
    """Return the volume of ``work``, open for writing."""
    spec, plan = spec_from_json(journal["spec"]), Plan.from_json(journal["plan"])
    levels = levels_of(spec, plan.shard, journal["ome_zarr"], pyramid=journal["pyramid"])
    with system_errors(work.final):
        return Pyramid(work.volume, levels, work.unfinished)


def open_trust(work: WorkFolder, journal: dict[str, Any]) -> dict[str, Pyramid]:
    """Return the maps of trust of ``work`` by name, open for writing."""
    spec, plan = spec_from_json(journal["spec"]), Plan.from_json(journal["plan"])
    with system_errors(work.final):
        return open_maps(work.volume, work.unfinished, spec, plan, journal)


def spec_as_json(spec: TargetSpec) -> dict[str, Any]:
    """Return ``spec`` as JSON values."""
    return asdict(spec) | {"dtype": spec.dtype.name}


def spec_from_json(values: dict[str, Any]) -> TargetSpec:
    """Return the spec that ``spec_as_json`` described."""
    lists = {name: tuple(values[name]) for name in ("shape", "voxel_size_nm", "first_pixel")}
    return TargetSpec(**{**values, **lists, "dtype": np.dtype(values["dtype"])})

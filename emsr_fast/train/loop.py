"""The training loop: steps, validation, checkpoints, and every way to stop without losing them."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader

from emsr_fast._backends import why_slow
from emsr_fast.callbacks import Say
from emsr_fast.errors import BackendError, EmsrError, UsageError, VolumeError
from emsr_fast.installing import lacking
from emsr_fast.model import Emsr
from emsr_fast.model.zoo import choose_device
from emsr_fast.train import process
from emsr_fast.train.config import TrainConfig
from emsr_fast.train.cost import clock, duration, end_after, measure_cost, say_cost
from emsr_fast.train.dataset import Crop, Crops, Numbers, readable
from emsr_fast.train.hold_back import Pair, described_split
from emsr_fast.train.output_folder import OutputFolder
from emsr_fast.train.pairs import check_apart, pairs_of
from emsr_fast.train.records import Records
from emsr_fast.train.start import card_of, first_network
from emsr_fast.train.state import TrainState
from emsr_fast.train.step import NotANumber, StepDropped, Stepper
from emsr_fast.train.validate import Validation, validate, validation_crops
from emsr_fast.wording import counted

_SHOWN_PAIRS = 3


class Diverged(VolumeError):
    """The loss or a gradient is no longer a number."""


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended."""

    steps: int
    seconds: float
    model: Path
    validation: Validation | None
    stopped_by: int | None = None  # number of the signal, if one did


def train(
    config: TrainConfig, *, resume: bool = False, say: Say = print, network: Emsr | None = None
) -> TrainingResult:
    """Train a network; leave ``last.pt``, ``best.safetensors``, ``log.csv`` and pictures in ``config.output``.

    Under torchrun every process trains its share of each batch with DistributedDataParallel.

    Args:
        resume: continue from ``last.pt``; on a CPU the result is bit for bit that of an undisturbed run.
        say: called with each line of progress.
        network: trained instead of the one that the settings name, such as a subclass with another architecture.

    Raises:
        UsageError: the settings contradict each other, the data, or what the output folder holds.
        VolumeError: data cannot be read, do not fit, or a checkpoint cannot be written.
        CheckpointError: the checkpoint to resume from is not of this run.
        BackendError: the device is not there.
    """
    if importlib.util.find_spec("skimage") is None:
        raise UsageError(lacking("training", "train"))
    with process.processes() as (rank, processes), ExitStack() as ending:
        folder = OutputFolder(config.output)
        folder.check(resume)
        if rank == 0:
            ending.enter_context(folder.held(resume))
        return _Run(config, rank, processes, say if rank == 0 else lambda line: None, network, resume).run()


class _Run:
    def __init__(
        self, config: TrainConfig, rank: int, processes: int, say: Say, network: Emsr | None, resume: bool
    ) -> None:
        self.config, self.rank, self.processes, self.say = config, rank, processes, say
        if config.batch % processes:
            raise UsageError(f"`batch` is {config.batch}, which {processes} processes do not divide; give a multiple")
        device = config.device
        if device in ("auto", "cuda") and torch.cuda.is_available() and processes > 1:
            device = f"cuda:{int(os.environ.get('LOCAL_RANK', rank)) % torch.cuda.device_count()}"
        self.device = choose_device(device)
        if slow := why_slow(self.device):
            self.say(f"note    {slow}")
        self.folder = OutputFolder(config.output)
        self.records = Records(config.output, tensorboard=config.tensorboard)
        # the same weights in every process
        torch.manual_seed(config.seed)
        network = first_network(config, say) if network is None else network
        network.card = card_of(network, config)
        self.scale = network.config.scale
        memory = torch.channels_last if config.channels_last else torch.contiguous_format
        network.train().to(self.device)
        network.to(memory_format=memory)  # type: ignore[call-overload]
        self.state = TrainState.fresh(network, config)
        # before the data, which may take long to read
        if resume:
            self.state.load(self.folder.checkpoint, config)
            if self.state.ended:  # after a kill, what follows the last step may be missing
                self._check_left()
        # what the first process makes, denoised references, the others find
        if rank > 0:
            dist.barrier()
        self.groups, held = self._pairs()
        if rank == 0 and processes > 1:
            dist.barrier()
        self.crops = validation_crops(held, config, self.scale) if rank == 0 else []

    def _pairs(self) -> tuple[list[tuple[float, list[Pair]]], list[list[Pair]]]:
        groups, held = [], []
        for source in self.config.sources:
            training, validation = pairs_of(source, self.scale, self.config.crop, self.folder.path / "denoised")
            groups.append((source.weight, training))
            held.append(validation)
            several = f"{source.strategy}, weight {source.weight:g}: " if len(self.config.sources) > 1 else ""
            self.say(f"data    {several}{described_split(training, validation)}")
            for pair in training[:_SHOWN_PAIRS]:
                self.say(f"        {pair.describe()}")
            if len(training) > _SHOWN_PAIRS:
                self.say(f"        and {len(training) - _SHOWN_PAIRS} more")
        check_apart([p for _, group in groups for p in group], [p for group in held for p in group])
        return groups, held

    def run(self) -> TrainingResult:
        if self.rank == 0:
            self.folder.prepare(self.config)
            self.records.go_on_from(self.state.step, self.state.history)
        parameters = sum(p.numel() for p in self.state.model.parameters())
        self.say(
            f"model   {self.config.name}: {parameters:,} parameters, x{self.scale}, on {self.device}, "
            f"{self.config.precision}, from step {self.state.step}"
            f"{f', {self.processes} processes' if self.processes > 1 else ''}"
        )
        if self.rank == 0:
            data = Crops(self.groups, self.config, self.scale)
            cost = measure_cost(self.state, self.config, data, self.processes, self.device)
            say_cost(cost, self.config, self.state.step, self.state.seconds, self.device, self.say)
        with process.stop_requests() as stop:
            try:
                stopped_by = self._steps(stop)
            except Diverged:
                # the checkpoint before is the one to go on from
                raise
            except Exception as error:
                # a file that broke in mid-run, or another process, must not cost what was learnt
                self._checkpoint()
                if self.processes > 1 and isinstance(error, RuntimeError) and not isinstance(error, EmsrError):
                    raise BackendError(
                        "another process of this run stopped; see its message, and go on with `resume`"
                    ) from error
                raise
            result = self._validate(stop) if not stopped_by else None
            stopped_by = stopped_by or (stop[0] if stop and self.crops and result is None else 0)
            self.state.ended = not stopped_by
            self._checkpoint()
        state = self.state
        return TrainingResult(state.step, state.seconds, self.folder.model("last"), result, stopped_by or None)

    def _check_left(self) -> None:
        """Raise UsageError if the run has used up its steps or minutes: ``resume`` alone would do nothing."""
        state, config = self.state, self.config
        if state.step >= config.steps:
            used, more = f"done its {counted(config.steps, 'step')}", f"`steps={2 * config.steps}`"
        elif config.minutes and state.seconds >= 60 * config.minutes:
            used = f"used its {config.minutes:g} minutes ({counted(state.step, 'step')})"
            more = f"`minutes={2 * config.minutes:g}`"
        else:
            return
        raise UsageError(
            f"the run in {self.folder.path} has {used}; to go on: `resume`, with {more}; "
            f"to use it now: {self.folder.model('last')}"
        )

    def _steps(self, stop: list[int]) -> int:
        """Train until the steps or the minutes are over, or a signal came: return its number, else 0."""
        config, state = self.config, self.state
        state.ended = False
        stepper = Stepper(state, config, self.device, self.processes)
        start, before, self._began = time.monotonic(), state.seconds, (state.step, state.seconds)
        saved_at, said_at = start, start - 60
        limit = 60 * config.minutes if config.minutes else None

        def look() -> None:
            if stop or (limit and before + time.monotonic() - start >= limit):
                raise StepDropped

        for crops in readable(self._loader()):
            stopped_by = self._agree(stop)
            if stopped_by or state.step >= config.steps or (limit and state.seconds >= limit):
                return stopped_by
            done = max(state.step / config.steps, state.seconds / limit if limit else 0.0)
            try:
                loss, norm = stepper.step(crops, done, look)
            except NotANumber as error:
                self._refuse(error.args[0], crops)
            except StepDropped:
                state.seconds = before + time.monotonic() - start
                return self._agree(stop)
            state.step += 1
            now = time.monotonic()
            state.seconds = before + now - start
            if self.rank == 0:
                self._log(loss, norm)
            if now - said_at >= 20 or state.step == config.steps:
                said_at = now
                self._say_progress(float(loss), limit)
            if state.step % config.validate_every == 0 and state.step < config.steps:
                self._validate(stop)
            if state.step % config.checkpoint_every == 0 or now - saved_at > 60 * config.checkpoint_minutes:
                self._checkpoint()
                saved_at = now
        return self._agree(stop)

    def _agree(self, stop: list[int]) -> int:
        """Return the signal that any process received, 0 if none, and take over the first process's clock."""
        if self.processes == 1:
            return stop[0] if stop else 0
        both = torch.tensor([float(stop[0] if stop else 0), self.state.seconds if self.rank == 0 else 0.0])
        both = both.double().to(self.device)
        dist.all_reduce(both, dist.ReduceOp.MAX)
        self.state.seconds = float(both[1])
        return int(both[0])

    def _loader(self) -> DataLoader[Crop]:
        config = self.config
        return DataLoader(
            Crops(self.groups, config, self.scale),
            batch_sampler=Numbers(self.state.step, config.steps, config.batch, self.rank, self.processes),
            num_workers=config.workers,
            # tensorstore has threads of its own and ends any process that is forked from one that has used it
            multiprocessing_context="forkserver" if config.workers and "tensorstore" in sys.modules else None,
            persistent_workers=config.workers > 0,
            pin_memory=self.device.type == "cuda",
        )

    def _refuse(self, value: object, crops: list[Tensor]) -> NoReturn:
        place = self.folder.save_bad_batch(f"{self.state.step}_{self.rank}", crops)
        raise Diverged(
            f"loss or gradient is {value} at step {self.state.step}; its batch is {place}: look at it; "
            "then go on from the last checkpoint with `resume` and a lower optimiser.rate, or optimiser.clip"
        )

    def _log(self, loss: Tensor, norm: Tensor) -> None:
        row = {"step": self.state.step, "loss": float(loss), "gradient_norm": float(norm)}
        row |= {"rate": self.state.optimiser.param_groups[0]["lr"], "seconds": round(self.state.seconds, 3)}
        self.records.add("log", row)

    def _say_progress(self, loss: float, limit: float | None) -> None:
        state, config = self.state, self.config
        rate = (state.step - self._began[0]) / max(state.seconds - self._began[1], 1e-9)  # of this session
        pixels = f"loss {loss:.5f}, {rate * config.batch * config.crop**2 / 1e6:.3f} LR Mpx/s"
        if limit and state.seconds / limit > state.step / config.steps:
            # how many steps the time has room for is not known, and moves
            self.say(f"step {state.step}, {clock(state.seconds)} of {clock(limit)}, {pixels}")
            return
        left = (config.steps - state.step) / max(rate, 1e-9)
        self.say(f"step {state.step}/{config.steps}, {pixels}, {duration(left)} left, to {end_after(left)}")

    def _validate(self, stop: list[int]) -> Validation | None:
        """Validate; return None if there are no crops for it, or a signal came meanwhile."""
        if not self.crops:
            return None
        state = self.state
        sheets = self.folder.path / "sheets"
        sheets.mkdir(exist_ok=True)
        found = validate(state.result, self.crops, sheets / f"step_{state.step:07}.png", lambda: bool(stop))
        if found is None:
            return None
        row = {"step": state.step, "psnr_db": found.psnr_db, "ssim": found.ssim, "gain_db": found.gain_db}
        row |= {"bicubic_psnr_db": found.bicubic_psnr_db, "bicubic_ssim": found.bicubic_ssim}
        state.history.append({name: float(value) for name, value in row.items()})
        self.records.add("validation", row)
        self.say(
            f"step {state.step}: PSNR {found.psnr_db:.3f} dB (bicubic {found.gain_db:+.3f}), SSIM {found.ssim:.4f} "
            f"(bicubic {found.bicubic_ssim:.4f}), {len(self.crops)} validation crops"
        )
        if found.psnr_db > state.best_psnr:
            state.best_psnr = found.psnr_db
            self.folder.save_model("best", state, found)
        return found

    def _checkpoint(self) -> None:
        if self.rank == 0:
            # the state last: a run that goes on from it, or has ended with it, has its model too
            self.folder.save_model("last", self.state)
            self.state.save(self.folder.checkpoint, self.config)

"""One step of training: the gradient of a batch, in one or more passes, and the optimiser's update."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from emsr_fast.train.config import GREY, TrainConfig
from emsr_fast.train.losses import reference_free_loss
from emsr_fast.train.schedule import rate_factor
from emsr_fast.train.state import TrainState

Look = Callable[[], None]  # raises StepDropped where the step must not go on

# LR pixels that pass a CPU's network together: no operator then takes longer than a second or two. From the settings
# alone, not from the time measured: a run that goes on must add up its gradients in the same order
_PASS_PX = 2**15


class StepDropped(Exception):
    """A step was abandoned before it changed the weights."""


class NotANumber(Exception):
    """The loss or a gradient is not a number; the argument is its value."""


def crops_per_pass(config: TrainConfig, processes: int, device: torch.device) -> int:
    """Return how many crops pass the network together: the whole batch of a process, except on a CPU.

    There the passes are of one size, or nearly: what each costs beside its pixels is not spent on a rest.
    """
    share = config.batch // processes
    if device.type != "cpu":
        return share
    passes = math.ceil(share / max(1, _PASS_PX // config.crop**2))
    return math.ceil(share / passes)


@contextmanager
def interruptible(look: Look) -> Iterator[None]:
    """Call ``look`` between the operators of a pass, forward and backward."""

    def seen(tensor: Tensor) -> Tensor:
        look()
        return tensor

    # autograd calls these wherever an operator keeps a tensor, and where its gradient needs it again
    with torch.autograd.graph.saved_tensors_hooks(seen, seen):
        yield


def loss_of(
    network: Callable[[Tensor], Tensor], crops: list[Tensor], sigma: float, config: TrainConfig, levels: int
) -> Tensor:
    """Return the loss of ``crops`` (y, x, normal noise) in the precision of ``config``.

    Args:
        sigma: standard deviation of the noise of y', in units of 1.
        levels: à-trous levels of the network.
    """
    y, x, normal = crops
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(config.precision)
    with torch.autocast(y.device.type, half, enabled=half is not None):
        return reference_free_loss(network, y, x, sigma * normal, config.loss, levels)


def on_device(crops: list[Tensor], config: TrainConfig, device: torch.device) -> list[Tensor]:
    """Return ``crops`` on ``device`` in the memory format of ``config``."""
    memory = torch.channels_last if config.channels_last else torch.contiguous_format
    return [t.to(device, non_blocking=True, memory_format=memory) for t in crops]


class Stepper:
    """Runs the steps of a run, on its ``state``."""

    def __init__(self, state: TrainState, config: TrainConfig, device: torch.device, processes: int) -> None:
        self.state, self.config, self.device, self.processes = state, config, device, processes
        self.network: nn.Module = state.model
        if config.compile:
            self.network = torch.compile(self.network)  # type: ignore[assignment]
        if processes > 1:
            self.network = DistributedDataParallel(self.network)
        self._at_once = crops_per_pass(config, processes, device)
        # the processes wait for each other inside a pass: they stop between two steps
        self._can_stop = processes == 1 and not config.compile

    def step(self, crops: list[Tensor], done: float, look: Look) -> tuple[Tensor, Tensor]:
        """Do one step on ``crops``; return the loss over all processes and the norm of the gradient.

        Args:
            crops: y, x and normal noise of this process's share of the batch.
            done: how much of the run is over, 0 to 1.
            look: see ``interruptible``.

        Raises:
            StepDropped: ``look`` raised it; weights and optimiser are those of the step before.
            NotANumber: the loss or the norm is not a number; weights and optimiser are those of the step before.
        """
        state, optimiser = self.state, self.config.optimiser
        rate = optimiser.rate * rate_factor(optimiser, done, state.step)
        for group in state.optimiser.param_groups:
            group["lr"] = rate
        state.optimiser.zero_grad(set_to_none=True)
        with interruptible(look) if self._can_stop else nullcontext():
            loss = self._gradient(crops)
        if self.processes > 1:
            # every process saw its share of the batch; all must find the same
            dist.all_reduce(loss)
            loss = loss / self.processes
        if not torch.isfinite(loss):
            raise NotANumber(float(loss))
        state.scaler.unscale_(state.optimiser)
        norm = nn.utils.clip_grad_norm_(state.model.parameters(), optimiser.clip or float("inf"))
        if not torch.isfinite(norm) and not state.scaler.is_enabled():
            raise NotANumber(float(norm))
        state.scaler.step(state.optimiser)
        state.scaler.update()
        if state.average is not None:
            state.average.update_parameters(state.model)
        return loss, norm.detach()

    def _gradient(self, crops: list[Tensor]) -> Tensor:
        """Add up the gradients of all passes; return the loss of this process's share."""
        # one noise level a batch, as published; the same in every process
        low, high = self.config.loss.extra_sigma
        share = torch.rand((), generator=torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.state.step))
        sigma = (low + (high - low) * float(share)) * GREY
        whole = torch.zeros((), device=self.device)
        parts = list(zip(*(t.split(self._at_once) for t in crops), strict=True))
        for number, part in enumerate(parts):
            with self._alone() if number < len(parts) - 1 else nullcontext():
                placed = on_device(list(part), self.config, self.device)
                loss = loss_of(self.network, placed, sigma, self.config, self.state.model.config.levels)
                loss = loss * (len(part[0]) / len(crops[0])) if len(parts) > 1 else loss
                whole += loss.detach()
                self.state.scaler.scale(loss).backward()
        return whole

    def _alone(self) -> AbstractContextManager[None]:
        """Exchange gradients between processes in the last pass only."""
        return self.network.no_sync() if isinstance(self.network, DistributedDataParallel) else nullcontext()

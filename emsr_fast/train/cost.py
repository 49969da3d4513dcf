"""Memory and time of a run, estimated from a small step before the first one."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import default_collate

from emsr_fast.callbacks import Say
from emsr_fast.errors import BackendError
from emsr_fast.train.config import TrainConfig
from emsr_fast.train.dataset import Crops
from emsr_fast.train.state import TrainState
from emsr_fast.train.step import crops_per_pass, loss_of, on_device
from emsr_fast.wording import counted

_MEASURED_PX = 2**12  # LR pixels of the first step that is measured, at most: a second or two for the largest network
_MEASURED_S = 5.0  # what the second may take to be a whole pass
_ALIVE = 2.0  # times what autograd keeps for the gradient: what a step holds at most; 1.7 to 1.8 measured
_BYTES_PER_PARAMETER = 16  # weight, gradient, two moments
_LONG_S = 24 * 3600


@dataclass(frozen=True)
class Cost:
    """Of one step."""

    seconds: float
    bytes: int  # beyond the program itself
    lr_px: int  # over all processes

    @property
    def speed(self) -> float:
        """LR Mpx/s."""
        return self.lr_px / self.seconds / 1e6


def measure_cost(state: TrainState, config: TrainConfig, data: Crops, processes: int, device: torch.device) -> Cost:
    """Return what a step costs, from the gradient of a few pixels; the state stays as it is.

    Time and memory grow as the pixels do. The gradient is taken twice: the first time operators prepare themselves, the
    second time, if that takes seconds, of a whole pass, since a part of the time is the same for any number of pixels.
    """
    share = config.batch // processes
    side = min(config.crop, int(_MEASURED_PX**0.5) // 4 * 4)
    number = min(share, max(1, _MEASURED_PX // side**2))
    whole = crops_per_pass(config, processes, device)
    pass_px = whole * config.crop**2
    seconds, kept = _gradient(state, config, data, number, side, device)
    times = pass_px / (number * side**2)
    free = free_bytes(device)
    if seconds * times <= _MEASURED_S and (free is None or _ALIVE * kept * times < free):
        number, side = whole, config.crop
    seconds, kept = _gradient(state, config, data, number, side, device)
    measured_px = number * side**2
    parameters = sum(p.numel() for p in state.model.parameters())
    activations = kept - 4 * parameters
    return Cost(
        seconds * share * config.crop**2 / measured_px,
        round(_ALIVE * activations * pass_px / measured_px) + _BYTES_PER_PARAMETER * parameters,
        config.batch * config.crop**2,
    )


def _gradient(
    state: TrainState, config: TrainConfig, data: Crops, number: int, side: int, device: torch.device
) -> tuple[float, int]:
    """Return the seconds that the gradient of ``number`` crops takes, and the bytes that autograd keeps for it."""
    scale = state.model.config.scale
    y, x, normal = default_collate([data[i] for i in range(number)])
    crops = [y[..., :side, :side], x[..., : scale * side, : scale * side], normal[..., :side, :side]]
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        return tensor

    start = time.perf_counter()
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        loss = loss_of(state.model, on_device(crops, config, device), 0.0, config, state.model.config.levels)
    loss.backward()
    # on a GPU the work is done when its result is here
    loss.item()
    seconds = time.perf_counter() - start
    state.optimiser.zero_grad(set_to_none=True)
    return seconds, sum(kept.values())


def say_cost(cost: Cost, config: TrainConfig, step: int, seconds: float, device: torch.device, say: Say) -> None:
    """Say what a step and the whole run cost.

    Args:
        step: steps done; seconds: spent in them.

    Raises:
        BackendError: a step needs more memory than there is.
    """
    free = free_bytes(device)
    there = f", {free / 1e9:.3g} GB are free" if free is not None else ""
    threads = f", {counted(torch.get_num_threads(), 'thread')}" if device.type == "cpu" else ""
    speed = f"{cost.speed:.2g} LR Mpx/s"
    say(f"step    about {duration(cost.seconds)}, {speed}, {cost.bytes / 1e9:.2g} GB on {device}{threads}{there}")
    if free is not None and cost.bytes > free:
        raise BackendError(
            f"a step needs about {cost.bytes / 1e9:.3g} GB of memory and {free / 1e9:.3g} GB are free; "
            "give a smaller `model`, or a smaller `crop`, or a smaller `batch`"
        )
    steps = config.steps - step
    whole = steps * cost.seconds
    if config.minutes and 60 * config.minutes - seconds < whole:
        left = max(0.0, 60 * config.minutes - seconds)
        say(f"run     about {counted(round(left / cost.seconds), 'step')} in {duration(left)}")
        return
    say(f"run     {counted(steps, 'step')}, about {duration(whole)}, to {end_after(whole)}")
    if whole > _LONG_S:
        say("note    to be done sooner: `minutes`, fewer steps, a smaller crop, batch or model, or a GPU")


def duration(seconds: float) -> str:
    """Return a time in words, two digits."""
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{_two_digits(seconds / length)} {unit}"
    return f"{_two_digits(seconds)} s"


def end_after(seconds: float) -> str:
    """Return the time of day that is so far ahead, with its date if that is not today's."""
    now, end = time.localtime(), time.localtime(time.time() + seconds)
    return time.strftime("%H:%M" if now[:3] == end[:3] else "%H:%M on %Y-%m-%d", end)


def clock(seconds: float) -> str:
    """Return a time as on a clock, such as 0:22 or 1:00:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _two_digits(value: float) -> str:
    return f"{value:.2g}" if value < 100 else f"{value:.0f}"


def free_bytes(device: torch.device) -> int | None:
    """Return the memory that is free on ``device``, None where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found: list[int] = []
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    # a container or a job of a cluster may use less than the machine has
    with suppress(OSError, ValueError):
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(found, default=None)

"""The state of a run on disk: complete, atomic, resumable bit for bit."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from emsr_fast.errors import CheckpointError, VolumeError
from emsr_fast.model.network import Emsr
from emsr_fast.publish import Staging
from emsr_fast.train.config import Optimiser, TrainConfig
from emsr_fast.train.schedule import optimiser_of

# how long to train, where, and how fast to learn may change between the sessions of a run
_FREE = {
    *("name", "steps", "minutes", "output", "workers", "device", "compile", "tensorboard"),
    *("validate_every", "validation_crops", "checkpoint_every", "checkpoint_minutes"),
}


def _same_optimiser(before: Optimiser, now: Optimiser) -> bool:
    return before.kind == now.kind and (before.ema is None) == (now.ema is None)


@dataclass
class TrainState:
    """All that the next step depends on; crops and noise depend on the seed and the step alone."""

    model: Emsr
    optimiser: torch.optim.Optimizer
    average: AveragedModel | None
    scaler: torch.amp.GradScaler
    step: int = 0  # steps done
    seconds: float = 0.0  # spent in them, over all sessions
    best_psnr: float = -float("inf")
    history: list[dict[str, float]] = field(default_factory=list)  # of validations
    ended: bool = False  # the run came to its end, the last validation included

    @classmethod
    def fresh(cls, model: Emsr, config: TrainConfig) -> TrainState:
        """Return the state before the first step."""
        decay = config.optimiser.ema
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay else None
        device = next(model.parameters()).device.type
        scaler = torch.amp.GradScaler(device, enabled=config.precision == "fp16" and device == "cuda")
        return cls(model, optimiser_of(model.parameters(), config.optimiser), average, scaler)

    @property
    def result(self) -> Emsr:
        """The network to validate and to keep: the averaged one if there is one."""
        if self.average is None:
            return self.model
        network = self.average.module
        assert isinstance(network, Emsr)
        return network

    def save(self, path: Path, config: TrainConfig) -> None:
        """Write everything to ``path``, atomically.

        Raises:
            VolumeError: the disk is full or the folder unwritable; the checkpoint before is still there.
        """
        content = {
            "config": config.model_dump_json(),
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "scaler": self.scaler.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "best_psnr": self.best_psnr,
            "history": self.history,
            "ended": self.ended,
        }
        try:
            with Staging(path.resolve()) as part, part.open("wb") as file:
                torch.save(content, file)
        except (OSError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
            raise VolumeError(
                f"checkpoint {path} cannot be written ({reason}); the one before is kept: free space and use `resume`"
            ) from error

    def load(self, path: Path, config: TrainConfig) -> None:
        """Continue from ``path``.

        Raises:
            CheckpointError: it is no checkpoint, or of a run with other settings; names them.
        """
        content = _read(path)
        before, now = TrainConfig.model_validate_json(content["config"]), config
        # how long to train, and where, may change
        changed = [
            key for key in TrainConfig.model_fields if key not in _FREE and getattr(before, key) != getattr(now, key)
        ]
        if "optimiser" in changed and _same_optimiser(before.optimiser, now.optimiser):
            changed.remove("optimiser")
        if changed:
            key = changed[0]
            raise CheckpointError(
                f"{path} is of a run with {key} = {getattr(before, key)!r}, now it is {getattr(now, key)!r}; "
                "resume with the same settings, or give another output folder"
            )
        self.model.load_state_dict(content["model"])
        self.optimiser.load_state_dict(content["optimiser"])
        if self.average is not None:
            self.average.load_state_dict(content["average"])
        self.scaler.load_state_dict(content["scaler"])
        self.step, self.seconds = content["step"], content["seconds"]
        self.best_psnr, self.history = content["best_psnr"], content["history"]
        self.ended = content.get("ended", True)  # versions that did not write it: as if it had


def _read(path: Path) -> dict[str, Any]:
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path} is a pipe, device or folder, not a checkpoint; start without `resume`")
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        missing = {"config", "model", "optimiser", "step"} - set(content)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{path} is not a checkpoint of a training run ({reason}); start without `resume`"
        ) from error
    if missing:
        raise CheckpointError(f"{path} is not a checkpoint of a training run: it lacks {sorted(missing)[0]!r}")
    return content

"""The output folder of a training run: settings, checkpoint, models. Log and pictures are there, too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import torch
import yaml
from torch import Tensor

from emsr_fast.errors import UsageError, VolumeError
from emsr_fast.holding import held
from emsr_fast.leftovers import tidy
from emsr_fast.model import save_model
from emsr_fast.publish import Staging, write_file
from emsr_fast.train.config import TrainConfig
from emsr_fast.train.state import TrainState
from emsr_fast.train.validate import Validation


class OutputFolder:
    """The folder at ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / "last.pt"

    def model(self, which: str) -> Path:
        """Return the path of the model file "last" or "best"."""
        return self.path / f"{which}.safetensors"

    def check(self, resume: bool) -> None:
        """Raise UsageError if a new run finds an old one here, or ``resume`` finds none."""
        there = self.checkpoint.exists()
        if resume and not there:
            raise UsageError(f"{self.checkpoint} does not exist; start without `resume`")
        if there and not resume:
            raise UsageError(f"{self.path} holds a run; continue it with `resume`, or give another output folder")

    @contextmanager
    def held(self, resume: bool) -> Iterator[None]:
        """Make the folder and hold it until the block ends; it is removed if nothing came into it.

        Raises:
            UsageError: see ``check``.
            VolumeError: another process trains there, or the folder cannot be written.
        """
        with ExitStack() as ending:
            try:
                ending.callback(_remove_empty, [path for path in (self.path, *self.path.parents) if not path.exists()])
                self.path.mkdir(parents=True, exist_ok=True)
                lock, advice = self.path / ".lock", "wait for it, or give another output folder"
                ending.enter_context(held(lock, f"is training in {self.path}", advice))
                ending.callback(lock.unlink, missing_ok=True)
            except OSError as error:
                raise self._unwritable(error) from error
            # a run that was killed after its last checkpoint writes it no more
            tidy(self.checkpoint)
            # another process may have come to its first checkpoint before it ended
            self.check(resume)
            yield

    def prepare(self, config: TrainConfig) -> None:
        """Write the settings.

        Raises:
            VolumeError: the folder cannot be written.
        """
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
        try:
            write_file((self.path / "config.yaml").resolve(), text.encode())
        except OSError as error:
            raise self._unwritable(error) from error

    def save_bad_batch(self, name: str, crops: Sequence[Tensor]) -> str:
        """Write a batch (y, x, noise) that cannot be learnt from; return in words where it is."""
        path = self.path / f"bad_batch_{name}.pt"
        try:
            with Staging(path.resolve()) as part:
                torch.save({"y": crops[0], "x": crops[1], "noise": crops[2]}, part)
        except (OSError, RuntimeError) as error:
            return f"lost, {path} could not be written ({error})"
        return f"in {path}"

    def save_model(self, which: str, state: TrainState, validation: Validation | None = None) -> None:
        """Write the network of ``state`` as model file ``which``, its card saying how it was trained.

        Raises:
            VolumeError: the file cannot be written.
        """
        network, card = state.result, state.model.card
        training = {**card.training, "steps": state.step, "seconds": round(state.seconds)}
        metrics = {"validation": vars(validation)} if validation else {}
        network.card = card.model_copy(update={"training": training, "metrics": metrics})
        try:
            save_model(network, self.model(which))
        except OSError as error:
            raise VolumeError(f"{self.model(which)} cannot be written: {error.strerror}") from error

    def _unwritable(self, error: OSError) -> VolumeError:
        return VolumeError(f"output folder {self.path} cannot be written: {error.strerror}")


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()

"""The output folder of a training run: settings, checkpoint, models. Log and pictures are there, too."""

from __future__ import annotations

from pathlib import Path

import yaml

from emsr_fast.errors import UsageError, VolumeError
from emsr_fast.model import save_model
from emsr_fast.publish import tidy
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

    def prepare(self, config: TrainConfig) -> None:
        """Make the folder, write the settings, and remove what killed processes left.

        Raises:
            VolumeError: the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
            (self.path / "config.yaml").write_text(text)
            for file in (self.checkpoint, self.model("last"), self.model("best")):
                tidy(file)
        except OSError as error:
            raise VolumeError(f"output folder {self.path} cannot be written: {error.strerror}") from error

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

"""The models in the package, and finding a model by name or path. Names and cards are read without torch."""

from __future__ import annotations

import math
import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import safe_open

from emsr_fast.errors import BackendError, CheckpointError
from emsr_fast.model.card import ModelCard, read_own_card

if TYPE_CHECKING:
    import torch

    from emsr_fast.model.network import Emsr

DEFAULT_MODEL = "emsr-x3-small"


def _folder() -> Path:
    return Path(str(resources.files("emsr_fast") / "weights"))


def available_models() -> list[str]:
    """Return the names of the models in the package."""
    return sorted(path.stem for path in _folder().glob("*.safetensors"))


def read_card(name: str) -> ModelCard:
    """Return the card of a model in the package, ``name`` being one of ``available_models()``."""
    return read_own_card(_folder() / f"{name}.safetensors")


def count_parameters(name: str) -> int:
    """Return how many parameters a model in the package has, ``name`` being one of ``available_models()``."""
    with safe_open(_folder() / f"{name}.safetensors", framework="np") as file:
        return sum(math.prod(file.get_slice(tensor).get_shape()) for tensor in file.keys())  # noqa: SIM118


def load_model(
    name_or_path: str | os.PathLike[str] = DEFAULT_MODEL, *, device: str = "auto", window_fit: str | None = None
) -> Emsr:
    """Return a network ready to run, float32, in evaluation mode.

    Args:
        name_or_path: a name of ``available_models()``, or a file: our own format or a released checkpoint.
        device: "auto" (CUDA if torch can use it, else CPU), "cpu", "cuda" or "cuda:N".
        window_fit: "pad" or "resize" instead of the file's own; see ``EmsrConfig``.

    Raises:
        CheckpointError: there is no such model, or the file cannot be used.
        BackendError: the device is not available.
    """
    from emsr_fast.model.checkpoint import read_model

    place = choose_device(device)
    return read_model(model_path(name_or_path), window_fit).to(place)


def model_path(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the file of a model; see ``load_model``."""
    path = Path(name_or_path)
    if str(name_or_path) in available_models():
        return _folder() / f"{name_or_path}.safetensors"
    if not path.exists():
        raise CheckpointError(
            f"model {str(name_or_path)!r} is neither a file nor one of the package's: {', '.join(available_models())}"
        )
    return path


def choose_device(device: str) -> torch.device:
    """Return the torch device that ``device`` names ("auto", "cpu", "cuda", "cuda:N"), checked to be usable."""
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise BackendError(f"device {device!r} is unknown: use auto, cpu, cuda or cuda:N") from error
    if chosen.type not in ("cpu", "cuda"):
        raise BackendError(f"device {device!r} is not supported: use auto, cpu, cuda or cuda:N")
    if chosen.type == "cuda":
        if not torch.cuda.is_available():
            raise BackendError(f"device {device!r} was asked for, but torch sees no CUDA device: use `device=cpu`")
        if (chosen.index or 0) >= torch.cuda.device_count():
            raise BackendError(
                f"device {device!r} was asked for, but there are {torch.cuda.device_count()} CUDA devices"
            )
    return chosen

"""Model files: our own (safetensors with a card) and the released checkpoints of the paper."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from emsr_fast.errors import CheckpointError
from emsr_fast.model import released
from emsr_fast.model.card import CARD_KEY, ModelCard, parse_card
from emsr_fast.model.config import EmsrConfig
from emsr_fast.model.network import Emsr
from emsr_fast.publish import write_file
from emsr_fast.wording import counted

log = logging.getLogger(__name__)

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def save_model(model: Emsr, path: str | os.PathLike[str], *, dtype: torch.dtype = torch.float32) -> None:
    """Write ``model`` with its card to ``path`` (.safetensors), atomically; weights are stored as ``dtype``."""
    write_file(Path(path).resolve(), encoded(model, dtype))


def encoded(model: Emsr, dtype: torch.dtype = torch.float32) -> bytes:
    """Return the content of a model file."""
    card = model.card.model_copy(update={"architecture": asdict(model.config)})
    tensors = {name: t.detach().to("cpu", dtype).contiguous() for name, t in model.state_dict().items()}
    return save(tensors, metadata={CARD_KEY: card.model_dump_json()})


def read_model(path: str | os.PathLike[str], window_fit: str | None = None) -> Emsr:
    """Return the network in ``path``, float32, on the CPU, in evaluation mode.

    Args:
        path: a file of ``save_model``, or a released checkpoint: a pickle of tensors (never of code), with or without
            its training state, or the same tensors as safetensors.
        window_fit: "pad" or "resize" instead of the file's own; released checkpoints are "resize".

    Raises:
        CheckpointError: the file is none of these; it says which tensor or field is wrong.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is a pipe or device" if path.exists() else "does not exist"
        raise CheckpointError(f"model {str(path)!r} {what}: give a model file")
    if path.stat().st_size == 0:
        raise CheckpointError(f"model {str(path)!r} is empty (0 bytes): copy or download it again")
    tensors, metadata = _read_safetensors(path) if _is_safetensors(path) else (_read_pickle(path), {})
    if CARD_KEY in metadata:
        card = parse_card(metadata[CARD_KEY], path)
        config = card.config
    else:
        tensors, config = released.to_own_names(tensors, metadata, path)
        card = ModelCard.for_config(config, name=path.stem, description="released checkpoint of arXiv 2401.08115")
    if window_fit is not None:
        config = EmsrConfig(**{**asdict(config), "window_fit": window_fit})
    # without memory of its own: the file's tensors become the parameters once they are found right
    with torch.device("meta"):
        model = Emsr(config, card)
    _load(model, tensors, path)
    return model.eval()


def _is_safetensors(path: Path) -> bool:
    # eight bytes of header length, then JSON
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"model {str(path)!r} is a damaged safetensors file ({error}): copy it again") from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" in str(error).lower() or "unsupported" in str(error).lower():
            reason = "it is a pickle that wants to run code, or is not a model file at all"
        else:
            reason = "it is damaged, or no model file at all"
        raise CheckpointError(
            f"model {str(path)!r} was refused: {reason}; give a .safetensors file or a checkpoint of plain tensors"
        ) from error
    except Exception as error:  # damaged bytes fail in any way inside torch
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"model {str(path)!r} is damaged or not a model file ({first_line}): copy it again"
        ) from error
    return _state_dict(content, path)


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    for key in ("model_state_dict", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content or not all(isinstance(t, Tensor) for t in content.values()):
        raise CheckpointError(f"model {str(path)!r} holds no state dict of tensors (found {_describe(content)})")
    # DataParallel prefixes every name
    tensors = {str(name).removeprefix("module."): t for name, t in content.items()}
    if len(tensors) < len(content):
        raise CheckpointError(
            f"model {str(path)!r} has tensors both with and without the prefix 'module.': keep one set"
        )
    return tensors


def _describe(content: Any) -> str:
    if isinstance(content, Mapping):
        return f"a dict with {', '.join(map(str, list(content)[:4])) or 'nothing'}"
    return type(content).__name__


def _load(model: Emsr, tensors: Mapping[str, Tensor], path: Path) -> None:
    wanted = model.state_dict()
    if missing := sorted(wanted.keys() - tensors.keys()):
        raise CheckpointError(f"model {str(path)!r} lacks {counted(len(missing), 'tensor')}, the first {missing[0]!r}")
    if unknown := sorted(tensors.keys() - wanted.keys()):
        raise CheckpointError(
            f"model {str(path)!r} has {counted(len(unknown), 'unknown tensor')}, the first {unknown[0]!r}"
        )
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise CheckpointError(
                f"model {str(path)!r}: {name!r} has shape {tuple(tensor.shape)}, expected {tuple(wanted[name].shape)}"
            )
        if tensor.dtype not in _DTYPES or tensor.layout != torch.strided or tensor.is_meta:
            kind = "no values" if tensor.is_meta else f"{tensor.dtype} ({tensor.layout})"
            raise CheckpointError(f"model {str(path)!r}: {name!r} has {kind}, expected dense float values")
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"model {str(path)!r}: {name!r} has values that are NaN or infinite")
    model.load_state_dict({name: t.float().contiguous() for name, t in tensors.items()}, assign=True)
    model.requires_grad_(True)

"""The EMSR network: configuration, modules, model files, shipped models.

The names load on first use: cards and names of models are read without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emsr_fast.model.card import ModelCard
    from emsr_fast.model.checkpoint import save_model
    from emsr_fast.model.config import EmsrConfig
    from emsr_fast.model.network import Emsr
    from emsr_fast.model.zoo import DEFAULT_MODEL, available_models, load_model, read_card

_HOME_OF = {
    "DEFAULT_MODEL": "zoo",
    "Emsr": "network",
    "EmsrConfig": "config",
    "ModelCard": "card",
    "available_models": "zoo",
    "load_model": "zoo",
    "read_card": "zoo",
    "save_model": "checkpoint",
}

__all__ = [
    "DEFAULT_MODEL",
    "Emsr",
    "EmsrConfig",
    "ModelCard",
    "available_models",
    "load_model",
    "read_card",
    "save_model",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'emsr_fast.model' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"emsr_fast.model.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value

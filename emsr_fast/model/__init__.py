"""The EMSR network: configuration, modules, model files, shipped models."""

from emsr_fast.model.card import ModelCard
from emsr_fast.model.checkpoint import save_model
from emsr_fast.model.config import EmsrConfig
from emsr_fast.model.network import Emsr
from emsr_fast.model.zoo import DEFAULT_MODEL, available_models, load_model, read_card

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

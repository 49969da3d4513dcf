"""Engines: a batch of LR tiles in, HR tiles out, by PyTorch, onnxruntime or TensorRT.

The names load on first use: the cache answers without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emsr_fast.engine.base import Engine
    from emsr_fast.engine.factory import ENGINES, check_engine, open_engine
    from emsr_fast.engine.torch_engine import TorchEngine

__all__ = ["ENGINES", "Engine", "TorchEngine", "check_engine", "open_engine"]

_HOMES = {"Engine": "base", "TorchEngine": "torch_engine"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'emsr_fast.engine' has no attribute {name!r}")
    return getattr(importlib.import_module(f"emsr_fast.engine.{_HOMES.get(name, 'factory')}"), name)

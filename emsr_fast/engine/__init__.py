"""Engines: a batch of LR tiles in, HR tiles out."""

from emsr_fast.engine.base import Engine
from emsr_fast.engine.torch_engine import TorchEngine

__all__ = ["Engine", "TorchEngine"]

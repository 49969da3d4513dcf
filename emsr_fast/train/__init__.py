"""Training without clean references: data, degradation, losses, loop."""

from emsr_fast.train.config import TrainConfig, read_config
from emsr_fast.train.loop import train

__all__ = ["TrainConfig", "read_config", "train"]

"""Registration of a small HR field to a large LR one, and the training pairs that come of it."""

from emsr_fast.pair.job import pair
from emsr_fast.pair.pose import Pose

__all__ = ["Pose", "pair"]

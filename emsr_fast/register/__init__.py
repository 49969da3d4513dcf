"""Registration of a small HR field to a large LR one, and the training pairs that come of it."""

from emsr_fast.register.job import pair
from emsr_fast.register.pose import Pose

__all__ = ["Pose", "pair"]

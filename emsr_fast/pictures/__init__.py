"""Pictures that several commands write."""

from emsr_fast.pictures.demo import degrade, demo_sheet
from emsr_fast.pictures.sheet import side_by_side

__all__ = ["degrade", "demo_sheet", "side_by_side"]

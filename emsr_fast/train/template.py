"""The example of settings that ``emsr-fast train`` writes on request: crop and batch are those for this machine."""

from __future__ import annotations

import re
from importlib import resources

import torch

from emsr_fast.model.zoo import choose_device
from emsr_fast.train.cost import free_bytes

# sides that are multiples of 12 suit the kernels' tiles
_CROP_PX = {"cpu": 48, "cuda": 96}
_BATCH = {"cpu": 8, "cuda": 16}
_BYTES_PER_PX = 60_000  # of a step, for an LR pixel, with the network of the paper: 54,000 estimated, 42,000 used


def template(device: torch.device | None = None) -> str:
    """Return the settings as YAML, each explained.

    Crop and batch are as large as is fast on ``device``, by default the one that "auto" chooses. The batch is smaller
    where a step of the largest network in the package would take more than half of the free memory.
    """
    device = device or choose_device("auto")
    crop, batch = _CROP_PX[device.type], _BATCH[device.type]
    free = free_bytes(device)
    if free is not None:
        batch = max(1, min(batch, free // 2 // (_BYTES_PER_PX * crop**2)))
    text = (resources.files("emsr_fast.train") / "template.yaml").read_text(encoding="utf-8")
    for name, value in (("crop", crop), ("batch", batch)):
        text = re.sub(rf"^{name}: \d+ *", f"{name}: {value}".ljust(30), text, flags=re.MULTILINE)
    return text

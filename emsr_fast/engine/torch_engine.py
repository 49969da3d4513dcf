"""The network in PyTorch, on a CPU or a CUDA device."""

from __future__ import annotations

import numpy as np
import torch

from emsr_fast._dispatch import kernels_on
from emsr_fast.model.network import Emsr


class TorchEngine:
    """Runs an ``Emsr`` network where its parameters are, in float32."""

    def __init__(self, model: Emsr) -> None:
        self.model = model.eval()
        self.scale = model.config.scale
        self.device = next(model.parameters()).device
        self.name = f"torch ({self.device}, kernels: {kernels_on(self.device)})"

    @torch.inference_mode()
    def run(self, batch: np.ndarray) -> np.ndarray:
        tiles = torch.from_numpy(np.ascontiguousarray(batch, dtype=np.float32)).to(self.device)
        return self.model(tiles).float().cpu().numpy()

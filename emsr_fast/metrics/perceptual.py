"""LPIPS, a learned perceptual distance. AlexNet is written here, without torchvision; its weights come from a file.

Source: Zhang et al., CVPR 2018 (arXiv 1801.03924), version 0.1.
"""

from __future__ import annotations

import importlib.util
import pickle
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from emsr_fast.errors import CheckpointError
from emsr_fast.metrics.fidelity import affine_fit

# convolutions of AlexNet, by their names in torchvision's file: stride, padding, whether a max pooling comes before
_LAYERS = {
    "features.0": (4, 2, False),
    "features.3": (1, 2, True),
    "features.6": (1, 1, True),
    "features.8": (1, 1, False),
    "features.10": (1, 1, False),
}
_CHANNELS = ((3, 64, 11), (64, 192, 5), (192, 384, 3), (384, 256, 3), (256, 256, 3))  # in, out, side of the kernel
# mean and deviation of the images that AlexNet was trained on, for intensities in [-1, 1]
_MEAN, _DEVIATION = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_SMALLEST_SIDE = 64


class Lpips:
    """LPIPS with its weights; call it with an image, its reference and their range."""

    def __init__(self, backbone: Path) -> None:
        """Read AlexNet's weights from ``backbone``, torchvision's alexnet-owt file; torchmetrics has the other weights.

        Raises:
            CheckpointError: ``backbone`` is another file, or torchmetrics has no weights for the distance.
        """
        weights = _read(backbone)
        self._convolutions: list[tuple[Tensor, Tensor]] = []
        for name, (inner, outer, side) in zip(_LAYERS, _CHANNELS, strict=True):
            weight, bias = weights.get(f"{name}.weight"), weights.get(f"{name}.bias")
            if weight is None or bias is None or tuple(weight.shape) != (outer, inner, side, side):
                raise CheckpointError(
                    f"{backbone} is not AlexNet: {name}.weight is not {outer}x{inner}x{side}x{side}; "
                    "give torchvision's alexnet weights"
                )
            self._convolutions.append((weight.float(), bias.float()))
        found = importlib.util.find_spec("torchmetrics")
        folder = Path(found.origin).parent if found and found.origin else Path()
        shipped = _read(folder / "functional" / "image" / "lpips_models" / "alex.pth")
        self._shares = [shipped[f"lin{level}.model.1.weight"].float() for level in range(len(_LAYERS))]

    @torch.no_grad()
    def __call__(self, image: np.ndarray, reference: np.ndarray, low: float, high: float) -> float | None:
        """Return the distance of ``image`` after ``affine_fit`` to ``reference``, both (H, W); 0 is equal.

        Grey becomes three equal colours, ``low`` -1 and ``high`` 1. None if a side is below 64 px.
        """
        if min(reference.shape) < _SMALLEST_SIDE:
            return None
        pair = np.stack([affine_fit(image, reference), reference.astype(np.float64)])
        x = torch.from_numpy((2 * (pair - low) / (high - low) - 1).astype(np.float32))[:, None].expand(-1, 3, -1, -1)
        x = (x - x.new_tensor(_MEAN).view(3, 1, 1)) / x.new_tensor(_DEVIATION).view(3, 1, 1)
        distance = 0.0
        for (stride, padding, pooled), (weight, bias), share in zip(
            _LAYERS.values(), self._convolutions, self._shares, strict=True
        ):
            x = F.max_pool2d(x, 3, 2) if pooled else x
            x = F.relu(F.conv2d(x, weight, bias, stride, padding))
            unit = x / (x.square().sum(dim=1, keepdim=True) + 1e-8).sqrt()
            distance += float(F.conv2d((unit[:1] - unit[1:]).square(), share).mean())
        return distance


def _read(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else (str(error).splitlines() or ["no pickle"])[0]
        raise CheckpointError(f"weights {path} cannot be read ({reason}); give a file of torch.save") from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"weights {path} hold no tensors by name; give torchvision's alexnet weights")
    return content

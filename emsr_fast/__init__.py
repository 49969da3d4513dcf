"""emsr_fast: exact, fast super-resolution and denoising of electron microscopy (EMSR, arXiv 2401.08115).

The public names load on first use, so that the command line answers before torch is imported.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emsr_fast.errors import BackendError, CheckpointError, EmsrError, UsageError, VolumeError
    from emsr_fast.infer.array import super_resolve
    from emsr_fast.model import Emsr, EmsrConfig, ModelCard, available_models, load_model, save_model
    from emsr_fast.ops.atrous import atrous_details
    from emsr_fast.ops.conv3x3 import conv3x3
    from emsr_fast.ops.edge_gate import edge_gate
    from emsr_fast.ops.residual_block import residual_block
    from emsr_fast.ops.upsample_to_image import upsample_to_image
    from emsr_fast.ops.window_attention import window_attention

__version__ = "0.1.0"

_HOMES = {
    "emsr_fast.errors": ("BackendError", "CheckpointError", "EmsrError", "UsageError", "VolumeError"),
    "emsr_fast.model": ("Emsr", "EmsrConfig", "ModelCard", "available_models", "load_model", "save_model"),
    "emsr_fast.ops": (
        "atrous_details",
        "conv3x3",
        "edge_gate",
        "residual_block",
        "upsample_to_image",
        "window_attention",
    ),
    "emsr_fast.infer.array": ("super_resolve",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BackendError",
    "CheckpointError",
    "Emsr",
    "EmsrConfig",
    "EmsrError",
    "ModelCard",
    "UsageError",
    "VolumeError",
    "__version__",
    "atrous_details",
    "available_models",
    "conv3x3",
    "edge_gate",
    "load_model",
    "residual_block",
    "save_model",
    "super_resolve",
    "upsample_to_image",
    "window_attention",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'emsr_fast' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

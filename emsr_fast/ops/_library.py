"""The torch.library namespace that every operator registers in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import forward_ad

LIBRARY = torch.library.Library("emsr_fast", "FRAGMENT")


def register(name: str, schema: str, run: Callable, fake: Callable) -> None:
    """Define ``emsr_fast::name`` with its kernel for CPU and CUDA tensors and its shape function."""
    LIBRARY.define(f"{name}{schema}")
    for key in ("CPU", "CUDA"):
        LIBRARY.impl(name, run, key)
    torch.library.register_fake(f"emsr_fast::{name}", fake, lib=LIBRARY)


def has_tangent(*tensors: Tensor) -> bool:
    """Return whether a forward derivative (``torch.func.jvp``) is asked for: our operators would say it is zero."""
    if torch.compiler.is_compiling():
        return False
    return any(forward_ad.unpack_dual(t).tangent is not None for t in tensors)

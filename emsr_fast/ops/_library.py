"""The torch.library namespace that every operator registers in."""

from __future__ import annotations

from collections.abc import Callable

import torch

LIBRARY = torch.library.Library("emsr_fast", "FRAGMENT")


def register(name: str, schema: str, run: Callable, fake: Callable) -> None:
    """Define ``emsr_fast::name`` with its kernel for CPU and CUDA tensors and its shape function."""
    LIBRARY.define(f"{name}{schema}")
    for key in ("CPU", "CUDA"):
        LIBRARY.impl(name, run, key)
    torch.library.register_fake(f"emsr_fast::{name}", fake, lib=LIBRARY)

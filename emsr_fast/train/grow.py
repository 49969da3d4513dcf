"""A larger network with the same output as a smaller one: a start for training.

Source: Net2Net (Chen, Goodfellow, Shlens 2016), with identity blocks for depth.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from emsr_fast.errors import UsageError
from emsr_fast.model.blocks import EdgeBlock
from emsr_fast.model.config import EmsrConfig
from emsr_fast.model.network import Emsr


def grown(small: Emsr, config: EmsrConfig, generator: torch.Generator) -> Emsr:
    """Return a network of ``config`` with the output of ``small``, up to rounding.

    Every feature is repeated. A layer that reads a repeated feature divides its weight among the copies at random, so
    that the copies learn different things. Additional blocks start as the identity.

    Args:
        small: the network to grow.
        config: as many or a whole multiple of the features and heads, as many or more blocks, the rest alike.
        generator: for the random shares.

    Raises:
        UsageError: ``config`` is not a larger one of the same kind.
    """
    old = small.config
    copies = config.features // old.features
    alike = all(getattr(config, name) == getattr(old, name) for name in ("scale", "levels", "window", "mlp_ratio"))
    if (
        not alike
        or config.features % old.features
        or config.heads != copies * old.heads
        or config.blocks < old.blocks
        or copies < 1
    ):
        raise UsageError(
            f"model {config} cannot grow from {old}: features and heads must be the same multiple, "
            "blocks at least as many, the rest alike"
        )
    large = Emsr(config)
    own = large.state_dict()
    for name, tensor in small.state_dict().items():
        own[name] = _widened(tensor, own[name].shape, copies, generator, qkv=name.endswith("qkv.weight"))
    large.load_state_dict(own)
    for block in large.blocks[old.blocks :]:
        assert isinstance(block, EdgeBlock)
        _make_identity(block)
    return large


def _widened(tensor: Tensor, shape: torch.Size, copies: int, generator: torch.Generator, *, qkv: bool) -> Tensor:
    """Return ``tensor`` with outputs (first axis) repeated, and inputs (second axis) repeated and shared."""
    if tensor.shape[0] != shape[0]:
        # queries, keys and values are three blocks of outputs
        blocks = tensor.chunk(3) if qkv else (tensor,)
        tensor = torch.cat([block.repeat(copies, *[1] * (tensor.dim() - 1)) for block in blocks])
    if tensor.dim() > 1 and tensor.shape[1] != shape[1]:
        size = (copies, tensor.shape[0], tensor.shape[1], *[1] * (tensor.dim() - 2))
        shares = 0.5 + torch.rand(size, generator=generator)
        shares = shares / shares.sum(dim=0)
        tensor = torch.cat([tensor * share for share in shares], dim=1)
    return tensor


def _make_identity(block: EdgeBlock) -> None:
    """Make ``block`` return its input; its parts have no effect now, but can learn."""
    silent: list[nn.Module] = [part.conv2 for part in (*block.body, *block.coarse)]
    silent += [part.k4 for part in block.attention]  # type: ignore[misc]
    silent += [block.transformer.proj, block.transformer.fc2]
    with torch.no_grad():
        for module in silent:
            for parameter in module.parameters():
                parameter.zero_()
        nn.init.dirac_(block.conv_out.weight)

"""Released checkpoints: from their tensor names to ours, and the configuration by the shapes of the tensors."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from emsr_fast.errors import CheckpointError
from emsr_fast.model.config import EmsrConfig

log = logging.getLogger(__name__)

# present in released checkpoints, without effect on the output
_DEAD = re.compile(
    r"conv_2\.weight|conv_before_upsample\.0\.(weight|bias)"
    r"|BasicBlocks\.\d+\.(conv_5|att\.spatialConv\.1)\.weight"
)
# in this order: the blocks' own names first, then what is left at the top level
_RENAMES = (
    (r"^BasicBlocks\.", "blocks."),
    (r"^(blocks\.\d+)\.stageI\.", r"\1.body."),
    (r"^(blocks\.\d+)\.conv_1\.", r"\1.to_image.0."),
    (r"^(blocks\.\d+)\.conv_2\.", r"\1.to_image.2."),
    (r"^(blocks\.\d+)\.conv_3\.", r"\1.from_edges."),
    (r"^(blocks\.\d+)\.conv_4\.", r"\1.conv_out."),
    (r"^(blocks\.\d+)\.stageII_(coarse|fine)\.", r"\1.\2."),
    (r"^(blocks\.\d+)\.stageII_att\.", r"\1.attention."),
    (r"^(blocks\.\d+)\.att\.attn\.", r"\1.transformer."),
    (r"^(blocks\.\d+)\.att\.mlp\.net\.0\.", r"\1.transformer.fc1."),
    (r"^(blocks\.\d+)\.att\.mlp\.net\.3\.", r"\1.transformer.fc2."),
    (r"^(blocks\.\d+)\.att\.", r"\1.transformer."),
    (r"^conv_1\.", "conv_in."),
    (r"^conv_4\.", "conv_out."),
    (r"^upsample_shuffle\.0\.", "upsample.0.conv."),
    (r"^upsample_shuffle\.2\.", "upsample.1.conv."),
)
_HEAD_DIM = 4  # of the released networks; the shapes do not tell


def own_name(name: str) -> str:
    """Return our name of the released tensor ``name``."""
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def to_own_names(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], path: Path
) -> tuple[dict[str, Tensor], EmsrConfig]:
    """Return the tensors that are used, under our names, and the configuration deduced from their shapes.

    Args:
        tensors: by released name; those without effect are dropped.
        metadata: of a safetensors file; "num_heads" is taken from it, because shapes do not tell it.
        path: for messages.

    Raises:
        CheckpointError: the tensors are not those of an EMSR network.
    """
    dead = sorted(name for name in tensors if _DEAD.fullmatch(name))
    if dead:
        log.debug("dropped %d tensors without effect on the output: %s", len(dead), ", ".join(dead))
    own = {own_name(name): t for name, t in tensors.items() if name not in dead}
    return own, _deduce(own, metadata, path)


def _deduce(own: Mapping[str, Tensor], metadata: Mapping[str, str], path: Path) -> EmsrConfig:
    def shape(name: str, rank: int) -> tuple[int, ...]:
        if name not in own or own[name].dim() != rank:
            seen = f"shape {tuple(own[name].shape)}" if name in own else f"none among {len(own)} tensors"
            raise CheckpointError(
                f"model {str(path)!r} is not an EMSR checkpoint: expected {name!r} of rank {rank}, found {seen}"
            )
        return tuple(own[name].shape)

    features = shape("conv_in.weight", 4)[0]
    blocks = {int(m[1]) for name in own if (m := re.match(r"blocks\.(\d+)\.", name))}
    if features == 0:
        raise CheckpointError(f"model {str(path)!r} is not an EMSR checkpoint: 'conv_in.weight' has no outputs")
    ratio = shape("upsample.0.conv.weight", 4)[0] / features
    scale = {4.0: 2, 9.0: 3}.get(ratio)
    if "upsample.1.conv.weight" in own and scale == 2:
        scale = 4
    if scale is None:
        raise CheckpointError(
            f"model {str(path)!r}: 'upsample.0.conv.weight' has {ratio:g} x {features} outputs, expected 4 or 9 x"
        )
    try:
        return EmsrConfig(
            scale=scale,
            features=features,
            blocks=len(blocks),
            levels=shape("blocks.0.from_edges.weight", 4)[1] // 2,
            heads=int(metadata.get("num_heads", max(features // _HEAD_DIM, 1))),
            mlp_ratio=shape("blocks.0.transformer.fc1.weight", 2)[0] // features,
            window_fit="resize",
        )
    except ValueError as error:
        raise CheckpointError(f"model {str(path)!r} is not an EMSR checkpoint: {error}") from error

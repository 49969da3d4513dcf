"""Operators with hand-written kernels: public functions, and their declarations (``OPERATORS``)."""

from emsr_fast.ops._operator import OPERATORS
from emsr_fast.ops.atrous import atrous_details
from emsr_fast.ops.conv3x3 import conv3x3
from emsr_fast.ops.edge_gate import edge_gate
from emsr_fast.ops.residual_block import residual_block
from emsr_fast.ops.upsample_to_image import upsample_to_image
from emsr_fast.ops.window_attention import window_attention

__all__ = [
    "OPERATORS",
    "atrous_details",
    "conv3x3",
    "edge_gate",
    "residual_block",
    "upsample_to_image",
    "window_attention",
]

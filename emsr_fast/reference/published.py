"""The published formulation of the whole network and of its tiling: the baseline that speed is compared with.

This is what users of EMSR run: float32, NCHW, one call for each convolution; the à-trous transform as dense 2-D kernels
with zeros between the taps, made on the host at every call; tiles of 341 px every 170 px, one at a time. It is written
from the description of the network, which leaves open how overlapping tiles are blended (here: averaged) and where the
last ones lie (here: at the border). Tensors without effect on the output are not computed, in favour of the baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from emsr_fast.reference.atrous import B3_SPLINE, GAUSSIAN
from emsr_fast.reference.conv3x3 import LEAKY_SLOPE
from emsr_fast.reference.window_attention import window_attention

TILE, STRIDE = 341, 170  # LR px, as published

_BLOCK_PARAMETERS = (
    *("norm1.weight", "norm1.bias", "qkv.weight", "proj.weight", "proj.bias"),
    *("norm2.weight", "norm2.bias", "fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"),
)


def super_resolve(network: Callable[[Tensor], Tensor], image: Tensor, tile: int = TILE, stride: int = STRIDE) -> Tensor:
    """Return the HR image (scale * H, scale * W) of ``image`` (H, W), overlapping tiles averaged.

    Args:
        network: (1, 1, h, w) to (1, 1, scale * h, scale * w), such as ``lambda y: forward(parameters, y)``.
        image: normalised intensities, float32.
        tile: side of a tile, LR px; smaller where the image is.
        stride: from tile to tile, LR px.
    """
    if not image.numel():
        raise ValueError(f"image must have at least one pixel, got shape {tuple(image.shape)}")
    total = weight = torch.empty(0)
    for rows, cols in tiles(image.shape[0], image.shape[1], tile, stride):
        result = network(image[rows, cols][None, None])[0, 0]
        scale = result.shape[0] // (rows.stop - rows.start)
        if not total.numel():
            total, weight = (image.new_zeros([scale * n for n in image.shape]) for _ in range(2))
        place = tuple(slice(scale * part.start, scale * part.stop) for part in (rows, cols))
        total[place] += result
        weight[place] += 1
    return total / weight


def tiles(height: int, width: int, tile: int = TILE, stride: int = STRIDE) -> Iterator[tuple[slice, slice]]:
    """Yield rows and columns of every tile of an image of (height, width) LR px; the last ones end at the border."""
    for top in _starts(height, tile, stride):
        for left in _starts(width, tile, stride):
            yield slice(top, min(top + tile, height)), slice(left, min(left + tile, width))


def _starts(length: int, tile: int, stride: int) -> list[int]:
    last = max(length - tile, 0)
    return [*range(0, last, stride), last]


def forward(parameters: Mapping[str, Tensor], y: Tensor, *, scale: int = 3, heads: int = 16, levels: int = 3) -> Tensor:
    """Return the HR images (B, 1, scale * H, scale * W) of ``y`` (B, 1, H, W), H and W at least 4.

    Args:
        parameters: the network's, by the names of ``Emsr.state_dict()``.
        y: normalised intensities, float32; features are resized to whole attention windows, as published.
        scale: 2 or 3.
        heads: attention heads.
        levels: à-trous levels.
    """
    edges = atrous_details(y, levels)
    x = shallow = _conv(parameters["conv_in.weight"], y)
    count = 1 + max(int(name.split(".")[1]) for name in parameters if name.startswith("blocks."))
    for index in range(count):
        prefix = f"blocks.{index}."
        part = {name.removeprefix(prefix): p for name, p in parameters.items() if name.startswith(prefix)}
        x = _block(part, x, edges, heads, levels)
    x = F.pixel_shuffle(_conv(parameters["upsample.0.conv.weight"], x + shallow), scale)
    return _conv(parameters["conv_out.weight"], x)


def atrous_details(x: Tensor, levels: int = 3) -> Tensor:
    """Return the details of ``x`` (B, C, H, W), (B, levels * C, H, W); dense kernels, made on the host each time."""
    coarser, details = _dense(x, GAUSSIAN, 1), []
    for level in range(levels):
        finer, coarser = coarser, _dense(coarser, B3_SPLINE, 2**level)
        details.append(finer - coarser)
    return torch.cat(details, dim=1)


def _dense(x: Tensor, taps: tuple[float, ...], step: int) -> Tensor:
    """Convolve each channel of ``x`` with taps x taps, ``step`` px apart, as one kernel that is mostly zeros."""
    row = torch.zeros(4 * step + 1, dtype=x.dtype)
    row[::step] = torch.tensor(taps, dtype=x.dtype)
    kernel = torch.outer(row, row).to(x.device)
    return F.conv2d(x, kernel.expand(x.shape[1], 1, *kernel.shape), padding=2 * step, groups=x.shape[1])


def _conv(weight: Tensor, x: Tensor) -> Tensor:
    return F.conv2d(x, weight, padding=1)


def _residual(p: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return _conv(p[f"{name}.conv2.weight"], F.relu(_conv(p[f"{name}.conv1.weight"], x))) + x


def _attention(p: Mapping[str, Tensor], name: str, w: Tensor) -> Tensor:
    asked = F.leaky_relu(_conv(p[f"{name}.k1.weight"], w), LEAKY_SLOPE)
    gate = torch.sigmoid(F.conv2d(asked, p[f"{name}.k2.weight"], p[f"{name}.k2.bias"]))
    return _conv(p[f"{name}.k4.weight"], _conv(p[f"{name}.k3.weight"], w) * gate)


def _block(p: Mapping[str, Tensor], x: Tensor, edges: Tensor, heads: int, levels: int) -> Tensor:
    for index in range(4):
        x = _residual(p, f"body.{index}", x)
    image = _conv(p["to_image.2.weight"], F.relu(_conv(p["to_image.0.weight"], x)))
    w = _conv(p["from_edges.weight"], torch.cat([edges, atrous_details(image, levels)], dim=1))
    for index in range(2):
        c, w = _residual(p, f"coarse.{index}", x), _residual(p, f"fine.{index}", w)
        x = c + _attention(p, f"attention.{index}", w) * c
    transformer: dict[str, Any] = {name.replace(".", "_"): p[f"transformer.{name}"] for name in _BLOCK_PARAMETERS}
    x = window_attention(x, **transformer, heads=heads, fit="resize")
    return _conv(p["conv_out.weight"], x)

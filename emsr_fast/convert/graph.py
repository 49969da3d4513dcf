"""The network for other runtimes: plain operators, any size, and the precision of every tensor in the graph."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emsr_fast import _backends
from emsr_fast.model.blocks import EdgeBlock, WindowTransformer
from emsr_fast.model.network import Emsr, Upsample
from emsr_fast.reference import atrous, window_attention

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Graph(nn.Module):
    """``Emsr`` in operators that ONNX has: (B, 1, H, W) to (B, 1, scale * H, scale * W), float32.

    Convolutions and matrix products compute in ``precision``. The rest stays in float32: the à-trous details, which are
    differences of nearly equal numbers; LayerNorm; softmax; the last sum of the upsampler. Sizes may be symbolic.
    """

    def __init__(self, model: Emsr, precision: str = "fp32") -> None:
        super().__init__()
        dtype = DTYPES[precision]
        model = copy.deepcopy(model).cpu().float().eval()
        self.levels = model.config.levels
        self.conv_in = model.conv_in.to(dtype)
        self.blocks = nn.ModuleList(_Block(block, dtype) for block in model.blocks if isinstance(block, EdgeBlock))
        step = model.upsample[0]
        assert isinstance(step, Upsample)  # for the type checker: the model has nothing else there
        self.upsample: nn.Module
        if len(model.upsample) == 1:
            self.upsample = FoldedUpsample(step.conv.weight, model.conv_out.weight, step.factor, dtype)
        else:
            self.upsample = nn.Sequential(model.upsample, model.conv_out).to(dtype)

    def forward(self, y: Tensor) -> Tensor:
        with _backends.use_backend("reference"):
            edges = atrous.atrous_details(y, self.levels).to(self.conv_in.weight.dtype)
            x = shallow = self.conv_in(y.to(self.conv_in.weight.dtype))
            for block in self.blocks[:-1]:
                x = block(x, edges)
            x = self.blocks[-1](x, edges, residual=shallow)
            return self.upsample(x).float()


class FoldedUpsample(nn.Module):
    """conv(pixel_shuffle(conv(x))), the first convolution and the last folded into one.

    A pixel of x adds to a patch of (scale + 2)**2 HR pixels, linearly in its 3x3 surroundings. So one convolution has
    this many output channels. The patches of neighbours overlap by 2 px and are added: by a convolution with ones, then
    the shuffle. Parts of patches outside the image are left out, so the border is as exact as the rest.
    """

    def __init__(self, up_weight: Tensor, out_weight: Tensor, scale: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("patches", patch_weights(up_weight, out_weight, scale).to(dtype))
        self.register_buffer("overlaps", overlap_weights(scale))

    def forward(self, x: Tensor) -> Tensor:
        patches = F.conv2d(x, self.get_buffer("patches"), padding=1)
        # a sum of ones in float32: the result is not rounded to half precision a second time
        return F.pixel_shuffle(F.conv2d(patches.float(), self.get_buffer("overlaps"), padding=1), self.scale)


def patch_weights(up_weight: Tensor, out_weight: Tensor, scale: int) -> Tensor:
    """Return the weights from a pixel's 3x3 surroundings to its patch, ((scale + 2)**2, C, 3, 3), float64.

    Channel ``v * (scale + 2) + u`` is HR row scale * y + v - 1 and column scale * x + u - 1 for pixel (y, x).
    """
    c, side = up_weight.shape[1], scale + 2
    up = up_weight.detach().double().reshape(c, scale, scale, c * 9)
    last = out_weight.detach().double()[0]
    patches = up.new_zeros(side, side, c * 9)
    for row in range(3):
        for col in range(3):
            # the last convolution carries an HR pixel (i, j) to (i - row + 1, j - col + 1)
            moved = torch.einsum("c,cijk->ijk", last[:, row, col], up)
            patches[2 - row : 2 - row + scale, 2 - col : 2 - col + scale] += moved
    return patches.reshape(side * side, c, 3, 3)


def overlap_weights(scale: int) -> Tensor:
    """Return the weights, ones and zeros, that add overlapping patches, (scale**2, (scale + 2)**2, 3, 3), float32."""
    side = scale + 2
    ones = torch.zeros(scale * scale, side * side, 3, 3)
    for v in range(side):
        for u in range(side):
            # HR pixel v - 1 of a patch lies in the LR pixel (v - 1) // scale rows on, whose own row is the remainder
            (row, i), (col, j) = divmod(v - 1, scale), divmod(u - 1, scale)
            ones[i * scale + j, v * side + u, 1 - row, 1 - col] = 1
    return ones


class _Block(nn.Module):
    """``EdgeBlock`` with details and transformer in operators that ONNX has."""

    def __init__(self, block: EdgeBlock, dtype: torch.dtype) -> None:
        super().__init__()
        self.block = block.to(dtype)
        self.transformer = _Transformer(block.transformer)

    def forward(self, x: Tensor, edges: Tensor, residual: Tensor | None = None) -> Tensor:
        block = self.block
        c = block.body(x)
        own = atrous.atrous_details(block.to_image(c).float(), block.levels).to(edges.dtype)
        w = block.from_edges(torch.cat([edges, own], dim=1))
        for coarse, fine, attention in zip(block.coarse, block.fine, block.attention, strict=True):
            c, w = coarse(c), fine(w)
            c = attention(w, c)
        return block.conv_out(self.transformer(c), residual=residual)


class _Transformer(nn.Module):
    """``reference.window_attention`` for symbolic sizes, its normalisations and softmax in float32."""

    def __init__(self, transformer: WindowTransformer) -> None:
        super().__init__()
        self.own = transformer
        self.heads, self.window, self.fit = transformer.heads, transformer.window, transformer.fit
        transformer.norm1.float()
        transformer.norm2.float()

    def forward(self, x: Tensor) -> Tensor:
        own, dtype = self.own, x.dtype
        tokens = x.permute(0, 2, 3, 1)
        height, width = tokens.shape[1:3]
        fitted, absent = self._fit(own.norm1(tokens.float()).to(dtype))
        q, k, v = window_attention._split(own.qkv(fitted), self.heads, self.window)
        scores = ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).float()
        if absent is not None:
            scores = scores + absent
        attended = window_attention._merge(scores.softmax(dim=-1).to(dtype) @ v, fitted.shape)
        tokens = tokens + own.proj(self._unfit(attended, height, width))
        hidden = F.relu(own.fc1(own.norm2(tokens.float()).to(dtype)))
        return (tokens + own.fc2(hidden)).permute(0, 3, 1, 2)

    def _fit(self, normed: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return tokens (B, H', W', C) in whole windows, and what to add to the scores of the keys, or None."""
        height, width = normed.shape[1:3]
        if _is_multiple(height, self.window) and _is_multiple(width, self.window):
            return normed, None
        rows, cols = height // self.window, width // self.window
        if self.fit == "resize":
            return _nearest(normed, rows * self.window, cols * self.window), None
        rows, cols = (height + self.window - 1) // self.window, (width + self.window - 1) // self.window
        below, right = rows * self.window - height, cols * self.window - width
        fitted = F.pad(normed, (0, 0, 0, right, 0, below))
        outside_rows = torch.arange(rows * self.window) >= height
        outside_cols = torch.arange(cols * self.window) >= width
        outside = outside_rows[:, None] | outside_cols[None, :]
        keys = outside.reshape(rows, self.window, cols, self.window).transpose(1, 2)
        # half of the lowest number: exp of it is 0, and no sum overflows
        absent = keys.reshape(rows, cols, 1, 1, self.window**2).float() * (torch.finfo(torch.float32).min / 2)
        return fitted, absent

    def _unfit(self, tokens: Tensor, height: int, width: int) -> Tensor:
        if self.fit == "resize" and not (_is_multiple(height, self.window) and _is_multiple(width, self.window)):
            return _nearest(tokens, height, width)
        return tokens[:, :height, :width]


def _is_multiple(size: int, of: int) -> bool:
    """Return whether a size is known to be a multiple: symbolic ones never are."""
    return isinstance(size, int) and size % of == 0


def _nearest(tokens: Tensor, height: int, width: int) -> Tensor:
    """Return tokens (B, H, W, C) resized with nearest, as torch rounds: floor(i * float32(size / new size))."""
    for axis, new in ((1, height), (2, width)):
        size = tokens.shape[axis]
        index = torch.arange(new).float() * (torch.full((), size).float() / torch.full((), new).float())
        tokens = tokens.index_select(axis, index.floor().long().clamp(max=size - 1))
    return tokens

"""Time per call of the residual block of two 3x3 convolutions, each backend that runs here, at the network's shapes."""

import pytest
import torch

from emsr_fast import _backends, residual_block
from emsr_fast.ops import OPERATORS

SIZES = {"lr_tile": (128, 128), "paper_tile": (341, 341)}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize("backend", OPERATORS["residual_block"].backends)
def bench_residual_block(benchmark, backend, size):
    if reason := _backends.why_not_here(backend):
        pytest.skip(reason)
    torch.manual_seed(0)
    c = 64
    x = torch.randn(1, c, *size).contiguous(memory_format=torch.channels_last)
    first, second = torch.randn(2, c, c, 3, 3) * (9 * c) ** -0.5
    benchmark.group = f"residual_block {c}, {size}"
    benchmark.extra_info.update(
        gflop=4 * 9 * c * c * size[0] * size[1] / 1e9,
        megapixels=size[0] * size[1] / 1e6,
        threads=torch.get_num_threads(),
    )
    with torch.inference_mode():
        expected = residual_block(x, first, second, backend="reference")
        result = residual_block(x, first, second, backend=backend)
        # two transformed convolutions: see bench_conv3x3.py
        assert (result - expected).abs().max() <= 4e-5 * expected.abs().max()
        benchmark(residual_block, x, first, second, backend=backend)

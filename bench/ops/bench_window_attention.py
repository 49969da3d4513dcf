"""Time per call of the window transformer block, each backend that runs here, at the shapes the network uses."""

import pytest
import torch

from emsr_fast import EmsrConfig, _backends
from emsr_fast.model.blocks import WindowTransformer
from emsr_fast.ops import OPERATORS

SHAPES = {"lr_tile": (1, 64, 128, 128), "paper_tile": (1, 64, 341, 341)}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("backend", OPERATORS["window_attention"].backends)
def bench_window_attention(benchmark, backend, shape):
    if reason := _backends.why_not_here(backend):
        pytest.skip(reason)
    torch.manual_seed(0)
    block = WindowTransformer(EmsrConfig())
    x = torch.randn(shape).contiguous(memory_format=torch.channels_last)
    benchmark.group = f"window_attention {shape}"
    pixels = x.numel() / x.shape[1]
    benchmark.extra_info.update(megapixels=pixels / 1e6, megabytes=2 * x.nbytes / 1e6, threads=torch.get_num_threads())
    with torch.inference_mode():
        with _backends.use_backend("reference"):
            expected = block(x)
        with _backends.use_backend(backend):
            torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)
            benchmark(block, x)

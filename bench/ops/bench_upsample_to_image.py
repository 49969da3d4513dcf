"""Time per call from features to image, each backend that runs here, at the shapes the network uses."""

import pytest
import torch

from emsr_fast import _backends, upsample_to_image
from emsr_fast.ops import OPERATORS

SHAPES = {"lr_tile": (1, 64, 128, 128), "paper_tile": (1, 64, 341, 341)}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("backend", OPERATORS["upsample_to_image"].backends)
def bench_upsample_to_image(benchmark, backend, scale, shape):
    if reason := _backends.why_not_here(backend):
        pytest.skip(reason)
    torch.manual_seed(0)
    x = torch.randn(shape).contiguous(memory_format=torch.channels_last)
    weights = torch.randn(scale * scale * 64, 64, 3, 3) / 24, torch.randn(1, 64, 3, 3) / 24
    benchmark.group = f"upsample_to_image x{scale} {shape}"
    benchmark.extra_info.update(
        gflop=2 * 25 * scale**2 * x.numel() / 1e9,
        megapixels=x[:, 0].numel() / 1e6,
        megabytes=(x.nbytes + 4 * scale**2 * x.numel() / 64) / 1e6,
        threads=torch.get_num_threads(),
    )
    with torch.inference_mode():
        expected = upsample_to_image(x, *weights, scale, backend="reference")
        result = upsample_to_image(x, *weights, scale, backend=backend)
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=2e-5)
        benchmark(upsample_to_image, x, *weights, scale, backend=backend)

"""Time per call of the 3x3 convolutions with their epilogues, each backend that runs here, at the network's shapes."""

import pytest
import torch

from emsr_fast import _backends, conv3x3
from emsr_fast.ops import OPERATORS

CHANNELS = [(64, 64), (16, 16), (1, 64), (6, 64), (64, 1)]
SIZES = {"lr_tile": (128, 128), "paper_tile": (341, 341)}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize("channels", CHANNELS, ids=str)
@pytest.mark.parametrize("backend", OPERATORS["conv3x3"].backends)
def bench_conv3x3(benchmark, backend, channels, size):
    if reason := _backends.why_not_here(backend):
        pytest.skip(reason)
    torch.manual_seed(0)
    inputs, outputs = channels
    x = torch.randn(1, inputs, *size).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(outputs, inputs, 3, 3) * (9 * inputs) ** -0.5
    benchmark.group = f"conv3x3 {inputs} to {outputs}, {size}"
    products = 9 * inputs * outputs * size[0] * size[1]
    benchmark.extra_info.update(
        gflop=2 * products / 1e9,
        megapixels=size[0] * size[1] / 1e6,
        megabytes=4 * size[0] * size[1] * (inputs + outputs) / 1e6,
        threads=torch.get_num_threads(),
    )
    with torch.inference_mode():
        expected = conv3x3(x, weight, activation="relu", backend="reference")
        result = conv3x3(x, weight, activation="relu", backend=backend)
        # a transformed convolution errs by about 1e-5 of the largest value (docs/performance-notes.md)
        assert (result - expected).abs().max() <= 2e-5 * expected.abs().max()
        benchmark(conv3x3, x, weight, activation="relu", backend=backend)

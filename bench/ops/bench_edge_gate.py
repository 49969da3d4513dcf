"""Time per call of the edge gate, each backend that runs here, at the shapes the network uses."""

import pytest
import torch

from emsr_fast import _backends, edge_gate
from emsr_fast.ops import OPERATORS

SHAPES = {"lr_tile": (1, 64, 128, 128), "paper_tile": (1, 64, 341, 341)}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("backend", OPERATORS["edge_gate"].backends)
def bench_edge_gate(benchmark, backend, shape):
    if reason := _backends.why_not_here(backend):
        pytest.skip(reason)
    torch.manual_seed(0)
    x = torch.randn(shape).contiguous(memory_format=torch.channels_last)
    k1, k3 = torch.randn(2, 64, 64, 3, 3) / 24
    k2, bias = torch.randn(64, 64, 1, 1) / 8, torch.randn(64)
    benchmark.group = f"edge_gate {shape}"
    products = (2 * 9 + 1) * 64 * x.numel()
    benchmark.extra_info.update(
        gflop=2 * products / 1e9,
        megapixels=x[:, 0].numel() / 1e6,
        megabytes=2 * x.nbytes / 1e6,
        threads=torch.get_num_threads(),
    )
    with torch.inference_mode():
        expected = edge_gate(x, k1, k2, bias, k3, backend="reference")
        # a transformed convolution errs by about 1e-5 of the largest value (docs/performance-notes.md)
        error = (edge_gate(x, k1, k2, bias, k3, backend=backend) - expected).abs().max()
        assert error <= 2e-5 * expected.abs().max()
        benchmark(edge_gate, x, k1, k2, bias, k3, backend=backend)

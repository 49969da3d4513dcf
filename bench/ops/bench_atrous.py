"""Time per call of atrous_details, each backend that runs here, at the shapes the network uses."""

import pytest
import torch

from emsr_fast import _backends, atrous_details
from emsr_fast.ops import OPERATORS
from emsr_fast.reference import atrous as reference

SHAPES = {"lr_tile": (1, 1, 320, 320), "slice": (1, 1, 1024, 1024), "batch": (8, 1, 96, 96)}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("backend", OPERATORS["atrous_details"].backends)
def bench_atrous_details(benchmark, backend, shape):
    device = "cuda" if backend in ("cuda", "triton") else "cpu"
    if reason := _backends.why_not_here(backend):
        pytest.skip(reason)
    x = torch.rand(shape, device=device)
    benchmark.group = f"atrous_details {shape} {device}"
    benchmark.extra_info.update(
        megapixels=x.numel() / 1e6, megabytes=4 * x.nbytes / 1e6, threads=torch.get_num_threads()
    )
    with torch.inference_mode():
        torch.testing.assert_close(atrous_details(x, 3, backend=backend), reference.atrous_details(x, 3))
        benchmark(run, x, backend)


def run(x, backend):
    atrous_details(x, 3, backend=backend)
    if x.is_cuda:
        torch.cuda.synchronize()

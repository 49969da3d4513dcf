"""Time per image of whole networks, each backend that runs here: the shipped models and the published formulation."""

import functools

import pytest
import torch

from emsr_fast import _backends, load_model

SIZE = 96


@pytest.mark.parametrize("backend", ["auto", "reference", "reference, as published"])
@pytest.mark.parametrize("name", ["emsr-x3-small", "emsr-x3"])
def bench_network(benchmark, name, backend):
    model = load_model(name, device="cpu")
    torch.manual_seed(0)
    y = torch.rand(1, 1, SIZE, SIZE)
    run = model
    if backend.endswith("published"):
        from emsr_fast.reference import published

        run = functools.partial(published.forward, model.state_dict(), heads=model.config.heads)
    benchmark.group = f"{name}, {SIZE}x{SIZE}, float32"
    benchmark.extra_info.update(
        megapixels=y.numel() / 1e6, megabytes=10 * y.nbytes / 1e6, threads=torch.get_num_threads()
    )
    with torch.inference_mode():
        with _backends.use_backend("reference"):
            expected = model(y)
        with _backends.use_backend(backend.partition(",")[0]):
            # the bound of rounding through a whole network; a wrong pixel is far off
            assert (run(y) - expected).abs().max() <= 1e-4 * expected.abs().max()
            benchmark(run, y)

"""Training throughput: our step against that of the plain loop (eager, NCHW or channels last, float32)."""

import resource

import pytest
import torch

from emsr_fast import Emsr, EmsrConfig, _backends
from emsr_fast.train.config import Loss
from emsr_fast.train.losses import reference_free_loss

CONFIG = EmsrConfig(features=32, blocks=2, heads=8)
BATCH, CROP = 8, 32


@pytest.mark.parametrize("kind", ["plain", "plain, channels_last", "channels_last", "bf16"])
def bench_training_step(benchmark, kind):
    torch.manual_seed(0)
    model = Emsr(CONFIG)
    memory = torch.contiguous_format if kind == "plain" else torch.channels_last
    model.to(memory_format=memory)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)
    y, noise = torch.rand(BATCH, 1, CROP, CROP), 0.01 * torch.randn(BATCH, 1, CROP, CROP)
    x = torch.rand(BATCH, 1, 3 * CROP, 3 * CROP)
    losses = []

    def step():
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=kind == "bf16"):
            loss = reference_free_loss(model, y, x, noise, Loss())
        loss.backward()
        optimiser.step()
        losses.append(float(loss))

    with _backends.use_backend("reference" if kind.startswith("plain") else "auto"):
        # a loop that does not learn is not worth timing
        for _ in range(3):
            step()
        assert losses[-1] < losses[0]
        benchmark.group = f"training step, {BATCH} crops of {CROP} px, three-term loss"
        benchmark(step)
    benchmark.extra_info.update(
        lr_megapixels=BATCH * CROP**2 / 1e6,
        threads=torch.get_num_threads(),
        peak_rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )

"""The shipped models on images they were not trained on."""

import itertools

import numpy as np
import pytest
import tifffile

from emsr_fast import available_models, load_model
from emsr_fast.engine import TorchEngine
from emsr_fast.io.resize import bicubic
from emsr_fast.metrics import psnr_after_affine_fit
from emsr_fast.train.degrade import reduce


@pytest.fixture(params=available_models())
def engine(request):
    return TorchEngine(load_model(request.param, device="cpu"))


@pytest.mark.parametrize("sigma", [1, 2, 5, 10, 15, 20, 25])
def test_pure_noise_comes_out_flatter(engine, sigma):
    for seed, level in ((0, 128), (1, 90)):
        noise = np.random.default_rng(seed).normal(level, sigma, (64, 64)).astype(np.float32)
        assert engine.run(noise[None, None] / 255)[0, 0].std() * 255 < noise.std()


@pytest.mark.parametrize("sigma", [0, 10])
def test_better_than_bicubic_against_the_next_slice(engine, stack, sigma):
    slices = tifffile.imread(stack)[20:27].astype(np.float32)
    rng = np.random.default_rng(0)
    gains = []
    for origin, reference in itertools.pairwise(slices):
        low = reduce(origin, 3) + np.float32(sigma) * rng.standard_normal((64, 64), dtype=np.float32)
        result = engine.run(low[None, None] / 255)[0, 0]
        restored, interpolated = (psnr_after_affine_fit(image, reference, 255) for image in (result, bicubic(low, 3)))
        gains.append(restored - interpolated)
    assert np.mean(gains) > 0

"""A tile with enough halo gives what the whole slice gives."""

import numpy as np
import pytest
import torch
from PIL import Image

from emsr_fast import Emsr, EmsrConfig, load_model
from emsr_fast.engine import TorchEngine
from emsr_fast.infer.tiles import tiles_of

FULL_HALO = 112  # LR px: nothing farther away reaches an output pixel of the paper's network


def difference(engine, image, tile, halo):
    """Return the largest difference between tiled and untiled prediction, relative to the largest output."""
    whole = engine.run(image[None, None])[0, 0]
    tiled = np.full_like(whole, np.nan)
    for part in tiles_of(*image.shape, tile, halo):
        hr = engine.run(image[part.read][None, None])[0, 0]
        tiled[part.own_in_output(engine.scale)] = hr[part.own_in_read(engine.scale)]
    return np.abs(tiled - whole).max() / np.abs(whole).max()


@pytest.fixture
def image(examples):
    return np.asarray(Image.open(examples / "rat_spinal_whitematter_sem_70nm_512.png")) / np.float32(255)


def test_tiled_equals_untiled_with_the_full_halo(image):
    engine = TorchEngine(load_model(device="cpu"))
    assert difference(engine, image[:238, :301], tile=120, halo=FULL_HALO) <= 1e-5


def test_tiled_equals_untiled_with_the_papers_depth(image):
    torch.manual_seed(0)
    model = Emsr(EmsrConfig(features=16, blocks=3, heads=4)).eval()
    engine = TorchEngine(model)
    assert difference(engine, image[:262, :255], tile=128, halo=FULL_HALO) <= 1e-5


def test_too_small_a_halo_is_seen(image):
    engine = TorchEngine(load_model(device="cpu"))
    assert difference(engine, image[:128, :128], tile=64, halo=0) > 1e-3

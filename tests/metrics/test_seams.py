"""Seams: a step between tiles is found, and nothing where there is none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from emsr_fast import load_model
from emsr_fast.engine import TorchEngine
from emsr_fast.infer.tiles import tiles_of
from emsr_fast.metrics import seams


def smooth(shape, seed):
    return 128 + 100 * ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 2)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), row=st.integers(0, 60), column=st.integers(0, 60))
def test_a_step_at_tile_borders_is_found_wherever_the_region_lies(seed, row, column):
    whole = smooth((320, 320), seed)
    tiles = np.add.outer(np.arange(320) // 96, np.arange(320) // 96) % 2
    origin = (3 * row, 3 * column)
    cut = (slice(origin[0], origin[0] + 130), slice(origin[1], origin[1] + 130))
    plain, stepped = (seams(image[cut], 32, 3, origin) for image in (whole, whole + 20 * tiles))
    assert plain.borders == stepped.borders
    assert 0.5 < plain.ratio < 2
    assert stepped.ratio > 5
    assert stepped.z > 10 > plain.z


def test_the_step_is_measured_as_it_is():
    # rows that rise evenly jump by nothing but the step
    image = np.add.outer(np.arange(60.0), np.zeros(64)) + np.where(np.arange(60) >= 30, 7.0, 0.0)[:, None]
    image += 0.01 * np.random.default_rng(0).standard_normal(image.shape)
    # one border between rows; columns have one at 30 too, which shows nothing: the mean of both
    found = seams(image, 10, 3)
    quiet = seams(image - np.where(np.arange(60) >= 30, 7.0, 0.0)[:, None], 10, 3)
    assert found.ratio / quiet.ratio > 100


def test_no_border_no_figure():
    assert seams(smooth((90, 90), 0), 256, 3) is None
    assert seams(np.zeros((200, 200)), 32, 3) is None
    assert seams(smooth((3, 3), 0), 1, 1) is None


def test_tiles_of_the_real_network_show_without_a_halo_and_not_with_one(stack):
    import tifffile

    engine = TorchEngine(load_model(device="cpu"))
    low = tifffile.imread(stack, key=5)[:96, :96].astype(np.float32) / 255
    found = {}
    for halo in (0, 32):
        image = np.full((288, 288), np.nan)
        for part in tiles_of(96, 96, 32, halo):
            image[part.own_in_output(3)] = engine.run(low[part.read][None, None])[0, 0][part.own_in_read(3)]
        found[halo] = seams(image, 32, 3)
    assert found[0].ratio > 3
    assert found[0].z > 5
    assert found[32].ratio == pytest.approx(1, abs=0.5)
    assert found[32].z < 3

"""The published formulation is the same function as the network, and its tiling is what it says."""

import functools

import pytest
import torch
from safetensors.torch import load_file

from emsr_fast import Emsr, EmsrConfig, load_model
from emsr_fast.reference import atrous, published


def networks(**config):
    """Return our network with random weights, and the published formulation of it."""
    torch.manual_seed(0)
    model = Emsr(EmsrConfig(features=16, heads=4, window_fit="resize", **config)).eval()
    settings = {"scale": model.config.scale, "heads": 4, "levels": model.config.levels}
    return model, functools.partial(published.forward, model.state_dict(), **settings)


@pytest.mark.parametrize("size", [(4, 4), (41, 23), (64, 48), (101, 101)], ids=str)
@pytest.mark.parametrize("scale", [2, 3])
def test_is_the_same_function_as_the_network(size, scale):
    model, network = networks(blocks=2, scale=scale)
    y = torch.rand(2, 1, *size)
    with torch.no_grad():
        expected, result = model(y), network(y)
    assert result.shape == (2, 1, scale * size[0], scale * size[1])
    assert (result - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_golden_vectors(data):
    vectors = load_file(data / "small_x3.io.safetensors")
    model = load_model(data / "small_x3.weights.safetensors", device="cpu")
    for size in ("32x32", "41x41", "37x50"):
        y = vectors[f"y_{size}"]
        result = published.forward(model.state_dict(), vectors[f"x_{size}"], heads=4)
        assert (result - y).abs().max() <= 1e-5 * y.abs().max()


@pytest.mark.parametrize("levels", [1, 3, 4])
def test_dense_kernels_are_the_separable_ones(levels):
    x = torch.rand(2, 3, 37, 29, dtype=torch.float64)
    torch.testing.assert_close(published.atrous_details(x, levels), atrous.atrous_details(x, levels))


def test_tiles_as_published():
    found = list(published.tiles(1024, 1024))
    assert len(found) == 36
    assert sorted({rows.start for rows, _ in found}) == [0, 170, 340, 510, 680, 683]
    assert all(part.stop - part.start == 341 for tile in found for part in tile)
    assert list(published.tiles(341, 341)) == [(slice(0, 341), slice(0, 341))]
    assert list(published.tiles(100, 342)) == [(slice(0, 100), slice(0, 341)), (slice(0, 100), slice(1, 342))]


def test_overlaps_are_averaged():
    image = torch.rand(30, 50)
    tile, stride = 16, 8
    total, weight = torch.zeros(60, 100), torch.zeros(60, 100)
    for top in (0, 8, 14):
        for left in (0, 8, 16, 24, 32, 34):
            # every tile's result is its own content and its own place, so that wrong places and weights show
            part = image[top : top + tile, left : left + tile].repeat_interleave(2, 0).repeat_interleave(2, 1)
            total[2 * top : 2 * (top + tile), 2 * left : 2 * (left + tile)] += part + part.mean()
            weight[2 * top : 2 * (top + tile), 2 * left : 2 * (left + tile)] += 1

    def network(y):
        big = y.repeat_interleave(2, 2).repeat_interleave(2, 3)
        return big + big.mean()

    torch.testing.assert_close(published.super_resolve(network, image, tile, stride), total / weight)


def test_away_from_tile_borders_it_is_the_whole_image():
    model, network = networks(blocks=1)
    image = torch.rand(160, 160)
    with torch.no_grad():
        whole = model(image)
        tiled = published.super_resolve(network, image, tile=128, stride=96)
    # the first tile alone makes the first 32 px (the last one starts there), 96 px from where its far border cuts
    corner = slice(0, 3 * 32)
    error = (tiled - whole).abs()
    assert error[corner, corner].max() <= 1e-5 * whole.abs().max()
    # and the borders do show: this is what exact tiling avoids
    assert error.max() > 1e-4 * whole.abs().max()


def test_an_empty_image_is_named():
    with pytest.raises(ValueError, match=r"at least one pixel, got shape \(0, 5\)"):
        published.super_resolve(lambda y: y, torch.zeros(0, 5))

"""Resampling of LR pixels: exact geometry, independent of tiles, and refused where nobody chose it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emsr_fast.io.resample import ResampledSource, coarser
from streaming import ArraySource

EVERYTHING = slice(None)
VOXEL = (40.0, 30.0, 30.0)


def noise(shape, dtype=np.float32):
    return (np.random.default_rng(0).random(shape) * 250).astype(dtype)


def whole(source):
    return source.read(0, EVERYTHING, EVERYTHING)


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_whole_factors_are_plain_binning(factor):
    pixels = noise((1, 10 * factor, 7 * factor))
    expected = pixels[0].astype(np.float64).reshape(10, factor, 7, factor).mean(axis=(1, 3))
    found = whole(ResampledSource(ArraySource(pixels, VOXEL), (30.0, 30.0), 30.0 * factor))
    assert np.abs(found - expected).max() <= 1e-4


@pytest.mark.parametrize(("parts", "joined"), [(3, 5), (3, 10), (7, 8), (9, 10)])
def test_coarser_pixels_are_means_over_their_area(parts, joined):
    # each source pixel cut into equal parts on its slope, then as many joined: the same areas, without any weights
    pixels = noise((1, 10 * joined, 7 * joined)).astype(np.float64)

    def cut(image):
        slope = np.gradient(np.pad(image, ((1, 1), (0, 0)), mode="edge"), axis=0)[1:-1]
        places = (np.arange(parts) + 0.5) / parts - 0.5
        return (image[:, None] + slope[:, None] * places[:, None]).reshape(-1, image.shape[1])

    fine = cut(cut(pixels[0]).T).T
    expected = fine.reshape(10 * parts, joined, 7 * parts, joined).mean(axis=(1, 3))
    found = whole(ResampledSource(ArraySource(pixels, VOXEL), (30.0, 30.0), 30.0 * joined / parts))
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-9
    assert found.mean() == pytest.approx(pixels.mean(), rel=1e-12)


@pytest.mark.parametrize("target", [20.0, 27.0, 33.0, 100.0])
def test_a_ramp_keeps_its_place(target):
    rows, cols = np.mgrid[:60, :80].astype(np.float32)
    found = whole(ResampledSource(ArraySource((rows + 2 * cols)[None], VOXEL), (30.0, 30.0), target))
    factor = target / 30
    centres = [(np.arange(side) + 0.5) * factor - 0.5 for side in found.shape]
    inside = slice(3, -3)
    assert np.abs(found - (centres[0][:, None] + 2 * centres[1]))[inside, inside].max() <= 1e-4


@pytest.mark.parametrize("target", [20.0, 29.0])
def test_finer_pixels_are_exact_on_parabolas(target):
    x = np.arange(50.0)
    pixels = np.tile((x - 20) ** 2, (50, 1))[None]
    found = whole(ResampledSource(ArraySource(pixels, VOXEL), (30.0, 30.0), target))
    centres = (np.arange(found.shape[1]) + 0.5) * target / 30 - 0.5
    assert np.abs(found - (centres - 20) ** 2)[:, 4:-4].max() <= 1e-9


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    size_y=st.floats(4, 200),
    size_x=st.floats(4, 200),
    dtype=st.sampled_from([np.uint8, np.int16, np.float32]),
    data=st.data(),
)
def test_a_pixel_does_not_depend_on_what_is_read_with_it(height, width, size_y, size_x, dtype, data):
    source = ResampledSource(ArraySource(noise((1, height, width), dtype), VOXEL), (size_y, size_x), 30.0)
    image = whole(source)
    assert image.shape == source.shape[1:]
    assert image.dtype == dtype
    for side, length, size in zip(image.shape, (height, width), (size_y, size_x), strict=True):
        # all of the source is covered, and no pixel lies outside it
        assert side * 30 / size >= length - 1e-2 * 30 / size
        assert side == 1 or (side - 1) * 30 / size < length
    spans = []
    for side in image.shape:
        start = data.draw(st.integers(0, side - 1))
        spans.append(slice(start, data.draw(st.integers(start + 1, side))))
    np.testing.assert_array_equal(source.read(0, *spans), image[tuple(spans)])


def test_large_slices_are_done_in_bands_with_the_same_result(monkeypatch):
    source = ResampledSource(ArraySource(noise((1, 90, 70)), VOXEL), (30.0, 30.0), 47.0)
    at_once = whole(source)
    monkeypatch.setattr("emsr_fast.io.resample._BAND_PIXELS", 200)
    np.testing.assert_array_equal(whole(source), at_once)


def test_flat_stays_flat_and_integers_are_clipped():
    for target in (11.0, 30.0, 77.0):
        assert (
            whole(ResampledSource(ArraySource(np.full((1, 20, 20), 200, np.uint8), VOXEL), (30.0, 25.0), target)) == 200
        ).all()
    edge = np.zeros((1, 20, 20), np.uint8)
    edge[..., 10:] = 255
    found = whole(ResampledSource(ArraySource(edge, VOXEL), (30.0, 30.0), 20.0))  # cubic overshoots at an edge
    assert {0, 255} <= set(found.ravel().tolist())
    assert (found[:, :10] == 0).all()


def test_an_image_becomes_coarser_by_any_factor():
    image = noise((1, 40, 40))[0].astype(np.float32)
    assert coarser(image, 1, (12, 9)).tolist() == image[:12, :9].tolist()
    means = image[:36, :27].reshape(12, 3, 9, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(coarser(image, 3, (12, 9)), means, rtol=1e-6)
    # pixel j is the mean from 1.7 j to 1.7 (j + 1): of a ramp, the value in the middle
    ramp = np.add.outer(np.arange(40.0), 2 * np.arange(40.0))
    centres = 1.7 * (np.arange(20) + 0.5) - 0.5
    np.testing.assert_allclose(coarser(ramp, 1.7, (20, 20)), np.add.outer(centres, 2 * centres), atol=1e-4)

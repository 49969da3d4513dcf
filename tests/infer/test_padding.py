"""Padding, large areas of nothing but 0, stays 0 whatever the tiles, costs no time, and changes nothing else."""

import numpy as np
import pytest
import tifffile
import zarr

from emsr_fast import super_resolve
from emsr_fast.cli import main
from emsr_fast.infer import pipeline
from emsr_fast.infer.engine_feed import EngineFeed
from emsr_fast.infer.padding import REACH, context_of, may_have_padding, padding_of

SCALE = 3


def tissue(height, width, seed=0):
    """Random values without a 0."""
    return np.random.default_rng(seed).integers(1, 255, (height, width)).astype(np.uint8)


def by_definition(image):
    """Which pixels are padding, told pixel by pixel as the words say it."""
    height, width = image.shape

    def around(y, x):
        return slice(max(y - REACH, 0), y + REACH + 1), slice(max(x - REACH, 0), x + REACH + 1)

    empty = np.array([[not image[around(y, x)].any() for x in range(width)] for y in range(height)])
    return np.array([[empty[around(y, x)].any() for x in range(width)] for y in range(height)])


def images():
    """Slices with areas of 0 that are large enough, just too small, at corners and sides, and slanted."""
    for height, width, parts in (
        (120, 150, [(slice(0, 120), slice(0, 70))]),
        (120, 150, [(slice(0, 40), slice(0, 40)), (slice(100, 120), slice(0, 150))]),
        (150, 150, [(slice(40, 105), slice(40, 105))]),
        (150, 150, [(slice(40, 104), slice(40, 105))]),
        (100, 100, [(slice(0, 33), slice(0, 33)), (slice(68, 100), slice(68, 100))]),
        (20, 100, [(slice(0, 20), slice(30, 100))]),
        (7, 9, [(slice(0, 7), slice(0, 9))]),
        (7, 9, [(slice(0, 6), slice(0, 9))]),
        (1, 1, []),
    ):
        image = tissue(height, width)
        for part in parts:
            image[part] = 0
        yield image
    rows, cols = np.ogrid[:140, :140]
    yield np.where(rows + cols < 140, 0, tissue(140, 140))


@pytest.mark.parametrize("image", list(images()), ids=lambda image: "x".join(map(str, image.shape)))
def test_padding_is_what_the_words_say_for_any_part_of_a_slice(image):
    expected, sides = by_definition(image), image.shape
    for side in (8, 50, 200):
        for top in range(0, sides[0], side):
            for left in range(0, sides[1], side):
                own = slice(top, min(top + side, sides[0])), slice(left, min(left + side, sides[1]))
                seen = context_of(own, sides)
                found = padding_of(image[seen], seen, own)
                np.testing.assert_array_equal(np.zeros_like(expected[own]) if found is None else found, expected[own])
                read = tuple(slice(max(part.start - REACH, 0), part.stop + REACH) for part in own)
                assert may_have_padding(image[read]) or found is None


def test_most_images_are_not_looked_at_twice():
    assert not may_have_padding(tissue(500, 500))
    image = tissue(500, 500)
    image[100:116] = 0
    assert not may_have_padding(image)


@pytest.fixture(scope="module")
def padded():
    """A slice of tissue in a frame of 0, aligned askew, and which of it is 0."""
    image = tissue(140, 180)
    rows, cols = np.ogrid[:140, :180]
    image[(cols + rows // 4 < 70) | (rows > 100)] = 0
    return image


@pytest.mark.parametrize(("dtype", "tile"), [(np.uint8, None), (np.float32, 64), (np.int16, None)])
def test_padding_is_0_to_its_edge_in_every_dtype_and_tiling(padded, dtype, tile):
    image = padded.astype(dtype)
    result = super_resolve(image, tile=tile)
    black = by_definition(padded).repeat(SCALE, 0).repeat(SCALE, 1)
    assert black.mean() > 0.3
    assert not result[black].any()
    # tissue is not 0 in large parts
    assert (result[~black] != 0).mean() > 0.7


def test_a_slice_that_is_no_larger_than_the_reach_has_no_padding(monkeypatch):
    monkeypatch.setattr(pipeline, "padding_of", None)  # would fail if it were called
    super_resolve(np.zeros((REACH, 40), np.uint8))
    with pytest.raises(TypeError):
        super_resolve(np.zeros((REACH + 1, 40), np.uint8))


def test_nothing_else_changes(padded, monkeypatch):
    with_rule = super_resolve(padded)
    without = tissue(140, 180)
    # zeros, but no areas as large as padding
    without[10:40, 20:50] = 0
    without[::3] = 0
    plain = super_resolve(without)
    monkeypatch.setattr(pipeline, "may_have_padding", lambda image: False)
    np.testing.assert_array_equal(super_resolve(without), plain)
    black = by_definition(padded).repeat(SCALE, 0).repeat(SCALE, 1)
    np.testing.assert_array_equal(super_resolve(padded)[~black], with_rule[~black])


@pytest.mark.parametrize("tile", [64])
def test_tiles_of_nothing_but_padding_are_not_given_to_the_network(monkeypatch, tile):
    image = tissue(128, 256)
    image[:, :192] = 0
    given = []
    submit = EngineFeed.submit
    monkeypatch.setattr(EngineFeed, "submit", lambda self, *what: given.append(what) or submit(self, *what))
    super_resolve(image, tile=tile)
    assert len(given) == (128 // tile) * (64 // tile)


@pytest.mark.parametrize(("halo", "more"), [(0, ()), pytest.param(32, ("--trust",), marks=pytest.mark.exhaustive)])
def test_any_halo_shards_and_trust_have_the_same_padding(tmp_path, halo, more):
    image = tissue(84, 288)
    image[:, 200:] = 0
    tifffile.imwrite(tmp_path / "in.tif", image, photometric="minisblack")
    out = tmp_path / "out.zarr"
    command = ["infer", str(tmp_path / "in.tif"), "-o", str(out), "--input-voxel", "ignore", f"--halo={halo}"]
    for shard in ("1/2", "2/2"):
        assert main([*command, "--tile=64", *more, "--shard", shard]) in (0, 4)
    black = by_definition(image).repeat(SCALE, 0).repeat(SCALE, 1)
    volume = zarr.open(out, mode="r")
    assert volume["0"].shards[2] < black.shape[1]  # several blocks
    assert not volume["0"][:][:, black].any()
    for name in volume["trust"] if more else ():
        values = volume[f"trust/{name}/0"][:]
        assert np.isfinite(values).all()
        assert not values[:, black if values.shape[-1] == black.shape[1] else by_definition(image)].any()


def test_infer_says_how_much_is_padding(tmp_path, padded, capsys):
    tifffile.imwrite(tmp_path / "in.tif", padded, photometric="minisblack")
    assert main(["infer", str(tmp_path / "in.tif"), "-o", str(tmp_path / "a.zarr"), "--input-voxel", "ignore"]) == 0
    pixels = int(by_definition(padded).sum())
    assert f"{pixels:,} input pixels of padding, large areas of nothing but 0, stay 0" in capsys.readouterr().err

"""Tiles: the owned parts cover a slice exactly once, on multiples of 4."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emsr_fast.errors import UsageError
from emsr_fast.infer.tiles import check_tiling, tiles_of

multiples_of_4 = st.integers(1, 40).map(lambda quarter: 4 * quarter)
sides = st.one_of(st.integers(1, 200), st.sampled_from([341, 331, 997, 1000]))


@settings(deadline=None)
@given(height=sides, width=sides, tile=multiples_of_4.filter(lambda side: side >= 12), halo=st.integers(0, 30))
def test_tiles_cover_a_slice_exactly_once(height, width, tile, halo):
    owners = np.zeros((height, width), int)
    for part in tiles_of(height, width, tile, 4 * halo):
        owners[part.own] += 1
        assert part.pixels == owners[part.own].size
    assert (owners == 1).all()


@settings(deadline=None)
@given(height=sides, width=sides, tile=multiples_of_4.filter(lambda side: side >= 12), halo=st.integers(0, 30))
def test_tiles_start_on_multiples_of_4_and_read_their_halo_where_there_is_one(height, width, tile, halo):
    halo *= 4
    for part in tiles_of(height, width, tile, halo):
        for read, own, length in zip(part.read, part.own, (height, width), strict=True):
            assert read.start % 4 == own.start % 4 == 0
            assert read.start == max(0, own.start - halo)
            assert read.stop == min(length, own.stop + halo)
            assert own.stop - own.start == tile or own.stop == length


def test_the_owned_part_is_found_again_in_what_was_read():
    image = np.arange(50 * 70).reshape(50, 70)
    large = image.repeat(3, axis=0).repeat(3, axis=1)
    for part in tiles_of(50, 70, 16, 8):
        assert (image[part.read][part.own_in_read()] == image[part.own]).all()
        read = image[part.read].repeat(3, axis=0).repeat(3, axis=1)
        assert (read[part.own_in_read(3)] == large[part.own_in_output(3)]).all()


@pytest.mark.parametrize(("tile", "halo"), [(0, 0), (-4, 0), (6, 0), (255, 32), (256, -4), (256, 30)])
def test_tiles_off_the_grid_of_4_are_refused(tile, halo):
    with pytest.raises(UsageError, match="multiple of 4"):
        check_tiling(tile, halo)
    with pytest.raises(UsageError, match="multiple of 4"):
        next(tiles_of(100, 100, tile, halo))

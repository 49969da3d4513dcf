"""Plans: blocks that cover a region once, tiles that suit memory, texts of the command line."""

import math
import signal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emsr_fast.convert.shapes import Shapes
from emsr_fast.errors import UsageError
from emsr_fast.infer.plan import DEFAULT_MEMORY, Plan, make_plan
from emsr_fast.infer.tiles import automatic_tile, even_divisions, tiles_within
from emsr_fast.io.selection import parse_memory, parse_roi, parse_share

sides = st.integers(1, 40)


def plan_of(shape, **changes):
    whole = tuple((0, side) for side in shape)
    options = {"region": whole, "scale": 3, "tile": None, "halo": 32, "itemsize": 1, "bytes_per_px": 1024} | changes
    return make_plan(shape, **options)


@settings(deadline=None)
@given(shape=st.tuples(sides, sides, sides), block=st.tuples(sides, sides, sides), tile=sides, data=st.data())
def test_blocks_and_tiles_cover_the_region_exactly_once(shape, block, tile, data):
    region = []
    for side in shape:
        first = data.draw(st.integers(0, side - 1))
        region.append((first, data.draw(st.integers(first + 1, side))))
    plan = Plan(shape, tuple(region), 2, (4 * tile, 4), 8, block, tile_is_given=True)
    owned, written = np.zeros(shape, int), np.zeros(plan.output_shape, int)
    for number in range(len(plan)):
        part = plan.block_at(number)
        assert plan.number_of(part.index) == number
        written[part.output] += 1
        for piece in plan.tiles(part):
            owned[(part.own[0], *piece.own)] += 1
            assert all(span.start % 4 == 0 for span in piece.read)
            assert all(r.start <= o.start < o.stop <= r.stop for r, o in zip(piece.read, piece.own, strict=True))
    assert (written == 1).all()
    inside = np.zeros(shape, bool)
    inside[tuple(slice(*span) for span in region)] = True
    assert (owned == inside).all()


@pytest.mark.parametrize("shape", [(100, 10000, 10000), (7, 1000, 30000), (3, 5, 5), (1, 4097, 800)], ids=str)
@pytest.mark.parametrize("bytes_per_px", [1024, 2048])
def test_automatic_tiles_fit_the_memory_and_divide_evenly(shape, bytes_per_px):
    plan = plan_of(shape, bytes_per_px=bytes_per_px)
    assert plan.largest_read_px * bytes_per_px <= DEFAULT_MEMORY / 2
    for tile, side in zip(plan.tile, shape[1:], strict=True):
        assert tile % 4 == 0
        # the last tile lacks less than 4 px for each of the others
        assert -(-side // tile) * tile - side < 4 * -(-side // tile)
    assert np.prod(plan.shard) <= DEFAULT_MEMORY / 16


@settings(deadline=None)
@given(
    shape=st.tuples(st.just(1), st.integers(1, 700), st.integers(1, 700)),
    tile=st.one_of(st.none(), st.integers(1, 80)),
    halo=st.integers(0, 20),
    equal_reads=st.booleans(),
    data=st.data(),
)
def test_what_tiles_read_along_an_axis_is_what_all_of_them_read(shape, tile, halo, equal_reads, data):
    region = [(0, 1)]
    for side in shape[1:]:
        first = data.draw(st.integers(0, side - 1))
        region.append((first, data.draw(st.integers(first + 1, side))))
    plan = plan_of(
        shape, region=tuple(region), tile=tile and 4 * tile, halo=4 * halo, equal_reads=equal_reads, bytes_per_px=2**14
    )
    for axis in (1, 2):
        # blocks along one axis, at the begin of the other
        blocks = [
            plan.block_at(plan.number_of((0, at, 0) if axis == 1 else (0, 0, at))) for at in range(plan.grid[axis])
        ]
        reads = {tile.own[axis - 1].start: tile.read[axis - 1] for block in blocks for tile in plan.tiles(block)}
        counted = [read for read, tiles in plan.reads_along(axis) for _ in range(tiles)]
        assert sorted(counted) == sorted(span.stop - span.start for span in reads.values())


def every_even_division(length):
    """Return tile sides by trying every number of parts."""
    sides = {4 * math.ceil(math.ceil(length / parts) / 4) for parts in range(1, length // 64 + 2)}
    whole = 4 * math.ceil(length / 4)
    return sorted((side for side in sides if side >= 64 or side == whole), reverse=True)


@given(length=st.integers(1, 5000), most=st.one_of(st.none(), st.integers(-8, 6000)))
def test_even_divisions_are_all_there_are(length, most):
    found = list(even_divisions(length, most))
    assert found == [side for side in every_even_division(length) if most is None or side <= most]


@pytest.mark.parametrize("tile", [None, 4])
@pytest.mark.parametrize("equal_reads", [False, True])
def test_a_plan_of_any_size_takes_no_loop_over_its_tiles(tile, equal_reads):
    longest = 2**31 - 1

    def too_long(number, frame):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(60)
    try:
        plan = plan_of((longest,) * 3, tile=tile, equal_reads=equal_reads, bytes_per_px=2048)
        for axis in (1, 2):
            assert sum(read * tiles for read, tiles in plan.reads_along(axis)) > longest
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("shape", [(1, 1, 20000), (2, 32, 20000), (1, 20000, 1)], ids=str)
def test_tiles_of_narrow_slices_are_of_a_length_that_engines_for_one_shape_take(shape):
    plan = plan_of(shape, equal_reads=True)
    rows, cols = plan.read_sizes
    Shapes((1, rows[0], cols[0]), (1, rows[1], cols[1]), (1, rows[1], cols[1]))  # refuses longer ones
    assert min(rows[1], cols[1]) == min(shape[1:])
    # others take any, and a slice that fits is one tile
    assert len(list(plan_of(shape).tiles(plan.block_at(0)))) == 1


def test_a_slice_that_fits_is_one_tile_without_any_halo():
    assert automatic_tile(700, 900, 32, 700 * 900) == (700, 900)
    assert automatic_tile(701, 900, 32, 700 * 900) != (704, 900)


def test_automatic_tiles_read_no_more_than_square_ones_would():
    for height, width, largest in [(10000, 10000, 732_000), (1000, 30000, 366_000), (2048, 2048, 10**6)]:
        rows, cols = automatic_tile(height, width, 32, largest)
        side = (int(largest**0.5) - 64) // 4 * 4

        def read(tile, height=height, width=width):
            parts = tiles_within(slice(0, height), slice(0, width), tile, 32, (height, width))
            return sum((t.read[0].stop - t.read[0].start) * (t.read[1].stop - t.read[1].start) for t in parts)

        assert read((rows, cols)) <= read((side, side))


def test_a_given_tile_is_kept_and_refused_only_beyond_a_given_memory():
    assert plan_of((1, 4000, 4000), tile=2000).tile == (2000, 2000)
    with pytest.raises(
        UsageError, match=r"tiles of 2000x2000 px with halo 32 need about 99\d\d MB, and `max_memory` is 2000 MB"
    ):
        plan_of((1, 4000, 4000), tile=2000, max_memory=2 * 10**9)
    with pytest.raises(UsageError, match="give a larger `max_memory`"):
        plan_of((1, 4000, 4000), max_memory=10**6)


def test_halving_goes_down_to_32_px_and_no_further():
    plan = plan_of((1, 1000, 40))
    assert plan.tile == (1000, 40)
    tiles = [plan.tile]
    while (smaller := plan.halved()) != plan:
        plan = smaller
        assert plan.block == (1, 1000, 40)
        tiles.append(plan.tile)
    assert tiles == [(1000, 40), (500, 32), (248, 32), (124, 32), (60, 32), (32, 32)]


def test_memory_is_given_with_its_unit():
    assert [parse_memory(t) for t in ("1.5GB", "800 mb", "2GiB")] == [1_500_000_000, 800_000_000, 2**31]
    for text in ("", "5", "GB", "-1GB", "nanGB", "infGB", "0MB", "x MB"):
        with pytest.raises(UsageError, match=r"such as 1\.5GB"):
            parse_memory(text)


def test_regions_are_two_corners():
    assert parse_roi("1,2,3:4,5,6", (9, 9, 9)) == ((1, 4), (2, 5), (3, 6))
    for text, words in (("1,2:3,4", "give z,y,x"), ("a,0,0:1,1,1", "give z,y,x"), ("0,0,0:0,1,1", "is empty"),
                        ("0,0,0:1,1,10", "beyond the volume, 9 x 9 x 9"), ("1,1,1", "give z,y,x"),
                        ("-1,0,0:1,1,1", "give z,y,x")):  # fmt: skip
        with pytest.raises(UsageError, match=words):
            parse_roi(text, (9, 9, 9))


def test_shares_are_counted_from_one():
    assert (parse_share(None), parse_share("1/1"), parse_share("3/16")) == ((0, 1), (0, 1), (2, 16))
    for text in ("0/4", "5/4", "1", "/", "a/b", "1/0"):
        with pytest.raises(UsageError, match="i from 1 to N"):
            parse_share(text)

"""Automatic tiles of a GPU: multiples of 4 that fit, the least predicted time, and where L2 decides."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from emsr_fast import Emsr, EmsrConfig
from emsr_fast.infer.gpu_tile import Gpu, gpu_tile
from emsr_fast.infer.plan import DEFAULT_MEMORY, make_plan
from emsr_fast.infer.prepare import bytes_per_px, gpu_of
from emsr_fast.infer.tiles import automatic_tile, even_divisions, tiles_within

MB = 2**20
CARDS = {"H100": (50 * MB, 132), "A100": (40 * MB, 108), "RTX 4090": (72 * MB, 128), "RTX 4070": (36 * MB, 46)}
lengths = st.integers(1, 3000)
halos = st.integers(0, 16).map(lambda n: 4 * n)


def whole(length):
    return -(-length // 4) * 4


def pixels(height, width, tile, halo):
    """Return how many tiles there are, and the pixels that the largest and all of them read."""
    parts = tiles_within(slice(0, height), slice(0, width), tile, halo, (height, width))
    read = [(t.read[0].stop - t.read[0].start) * (t.read[1].stop - t.read[1].start) for t in parts]
    return len(read), max(read), sum(read)


@given(
    height=lengths, width=lengths, halo=halos, largest=st.integers(1, 2**22), features=st.sampled_from([16, 32, 64]),
    card=st.sampled_from(list(CARDS.values())), itemsize=st.sampled_from([2, 4]),
)  # fmt: skip
def test_tiles_are_aligned_and_fit(height, width, halo, largest, features, card, itemsize):
    rows, cols = gpu_tile(height, width, halo, largest, Gpu(*card, features, itemsize))
    assert rows % 4 == cols % 4 == 0
    assert 4 <= rows <= whole(height)
    assert 4 <= cols <= whole(width)
    _, most, _ = pixels(height, width, (rows, cols), halo)
    assert most <= largest or (rows, cols) == (min(64, whole(height)), min(64, whole(width)))


@given(height=lengths, width=lengths, halo=halos, largest=st.integers(2**14, 2**21), features=st.sampled_from([16, 64]))
def test_more_multiprocessors_want_fewer_tiles(height, width, halo, largest, features):
    counts = [
        pixels(height, width, gpu_tile(height, width, halo, largest, Gpu(40 * MB, n, features, 2)), halo)[0]
        for n in (1, 28, 132, 500)
    ]
    assert counts == sorted(counts, reverse=True)


@given(height=lengths, width=lengths, halo=halos, largest=st.integers(2**14, 2**21))
def test_where_l2_decides_nothing_the_halos_do(height, width, halo, largest):
    # in float32 a pixel costs the same everywhere; on a GPU of no multiprocessors, so does a tile
    rows, cols = gpu_tile(height, width, halo, largest, Gpu(0, 0, 64, 4))
    best = automatic_tile(height, width, halo, largest)
    assert pixels(height, width, (rows, cols), halo)[2] == pixels(height, width, best, halo)[2]


def test_a_tile_stays_in_l2_where_that_is_predicted_to_win():
    largest, side = 3_000_000, 10_000

    def read_bytes(name, features):
        tile = gpu_tile(side, side, 32, largest, Gpu(*CARDS[name], features, 2))
        return 3 * features * 2 * (tile[0] + 64) * (tile[1] + 64)

    for name, (l2_bytes, _) in CARDS.items():
        # 64 features compute longer than memory takes, and halos cost more; with 16, memory decides
        assert read_bytes(name, 64) > l2_bytes
        assert l2_bytes / 2 < read_bytes(name, 16) <= l2_bytes
    # twice the cache, larger tiles; so large that the whole slice fits, one tile
    sizes = [np.prod(gpu_tile(side, side, 32, largest, Gpu(n * MB, 132, 16, 2))) for n in (50, 100, 200)]
    assert sizes == sorted(sizes)
    assert gpu_tile(500, 900, 32, largest, Gpu(200 * MB, 132, 16, 2)) == (500, 900)


def test_the_choice_is_the_least_of_all_that_fit():
    gpu, halo, height, width, largest = Gpu(50 * MB, 132, 16, 2), 32, 1900, 2100, 10**6

    def cost(tile):
        count, most, in_all = pixels(height, width, tile, halo)
        return in_all * float(gpu.penalty(np.array(most))) + count * 132 * 768 if most <= largest else np.inf

    sides = [(rows, cols) for rows in even_divisions(height) for cols in even_divisions(width)]
    assert cost(gpu_tile(height, width, halo, largest, gpu)) == pytest.approx(min(map(cost, sides)), rel=1e-3)


@pytest.mark.parametrize(
    ("card", "features", "tile"),
    [("H100", 64, (668, 912)), ("RTX 4070", 64, (668, 912)), ("H100", 32, (912, 1432)), ("H100", 16, (628, 716))],
)
def test_the_table_of_the_readme(card, features, tile):
    largest = DEFAULT_MEMORY // 2 // (8 * 2 * features)
    assert gpu_tile(10_000, 10_000, 32, largest, Gpu(*CARDS[card], features, 2)) == tile


def test_only_a_plan_for_a_gpu_without_a_given_tile_is_chosen_so():
    options = {"scale": 3, "halo": 32, "itemsize": 1, "bytes_per_px": 256}
    shape, region = (1, 10_000, 10_000), ((0, 1), (0, 10_000), (0, 10_000))
    gpu = Gpu(*CARDS["H100"], 16, 2)
    largest = DEFAULT_MEMORY // 2 // 256
    assert make_plan(shape, region, tile=None, gpu=gpu, **options).tile == gpu_tile(10_000, 10_000, 32, largest, gpu)
    assert make_plan(shape, region, tile=None, **options).tile == automatic_tile(10_000, 10_000, 32, largest)
    assert make_plan(shape, region, tile=128, gpu=gpu, **options).tile == (128, 128)


def test_a_gpu_is_known_by_what_torch_says_of_it(monkeypatch):
    network = Emsr(EmsrConfig(features=16, blocks=1, heads=4))
    assert gpu_of(network, "fp16") is None
    assert bytes_per_px(network, "fp16") == bytes_per_px(network) == 8 * 4 * 16
    properties = SimpleNamespace(L2_cache_size=50 * MB, multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    there = SimpleNamespace(
        config=network.config, conv_in=SimpleNamespace(weight=SimpleNamespace(is_cuda=True, device=0))
    )
    assert gpu_of(there, "fp16") == Gpu(50 * MB, 132, 16, 2)
    assert gpu_of(there, None) == Gpu(50 * MB, 132, 16, 4)
    assert bytes_per_px(there, "bf16") == 8 * 2 * 16

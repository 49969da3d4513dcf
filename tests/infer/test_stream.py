"""The stream: every voxel once and in its place, stages that overlap and wait, engines without memory."""

import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinates import CoordinateEngine
from emsr_fast.errors import BackendError, VolumeError
from emsr_fast.infer.background import BackgroundConsumer, produced_ahead
from emsr_fast.infer.job import infer
from emsr_fast.infer.pipeline import stream
from emsr_fast.infer.plan import Plan
from emsr_fast.infer.statistics import Statistics
from emsr_fast.io.intensity import Normalisation
from emsr_fast.io.registry import open_source
from emsr_fast.io.volume import SourceVolume, TargetSpec, VolumeInfo
from emsr_fast.io.writers.ome_zarr import Pyramid
from emsr_fast.publish import write_durably
from streaming import IDENTITY


@st.composite
def plans(draw):
    """A plan over any shape, region, tile, halo and shard."""
    shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 50), st.integers(1, 50)))
    region = []
    for side in shape:
        first = draw(st.integers(0, side - 1))
        region.append((first, draw(st.integers(first + 1, side))))
    tile = (4 * draw(st.integers(1, 8)), 4 * draw(st.integers(1, 8)))
    block = [draw(st.integers(1, 4)), tile[0] * draw(st.integers(1, 3)), tile[1] * draw(st.integers(1, 3))]
    block = [min(side, stop - start) for side, (start, stop) in zip(block, region, strict=True)]
    return Plan(shape, tuple(region), 3, tile, 4 * draw(st.integers(0, 4)), tuple(block), tile_is_given=True)


@settings(deadline=None, max_examples=40)
@given(plan=plans(), chunks=st.tuples(st.integers(1, 4), st.integers(1, 60), st.integers(1, 60)))
def test_each_voxel_is_written_once_and_a_coordinate_ramp_is_displaced_by_nothing(tmp_path_factory, plan, chunks):
    folder = tmp_path_factory.mktemp("ramp")
    depth, height, width = plan.shape
    # a pixel holds its place in its slice, and slices differ by far more
    ramp = np.arange(height * width, dtype=np.float32).reshape(1, height, width) + np.zeros((depth, 1, 1), np.float32)
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 1]}]}]
    multiscales = [{"axes": [{"name": n, "type": "space"} for n in "zyx"], "datasets": datasets}]
    group = zarr.create_group(folder / "in.zarr", attributes={"ome": {"version": "0.5", "multiscales": multiscales}})
    sides = tuple(min(c, s) for c, s in zip(chunks, plan.shape, strict=True))
    # a chunk of nothing but the fill value would not be stored
    group.create_array("0", data=ramp, chunks=sides, fill_value=-1)
    (folder / "unfinished").mkdir()
    spec = TargetSpec(plan.output_shape, np.dtype("f4"), 3)
    pyramid = Pyramid.create(
        folder / "out.zarr", spec, plan.shard,
        title="out", version="0.5", pyramid=True, put=partial(write_durably, unfinished=folder / "unfinished"),
    )  # fmt: skip
    writes, statistics, done = np.zeros(plan.output_shape, int), Statistics(), []

    def write(finished):
        assert pyramid.levels[0].place(finished.block.index) == finished.block.output
        writes[finished.block.output] += 1
        pyramid.write(0, finished.block.index, finished.pixels)

    with open_source(folder / "in.zarr") as source:
        stream(
            map(plan.block_at, range(len(plan))), source, CoordinateEngine(width), plan, IDENTITY, spec.dtype, write,
            statistics=statistics, progress=done.append,
        )  # fmt: skip
    assert (writes == 1).all()
    large = np.arange(9 * height * width, dtype=np.float32).reshape(3 * height, 3 * width)
    (_, _), rows, cols = plan.region
    expected = large[3 * rows[0] : 3 * rows[1], 3 * cols[0] : 3 * cols[1]]
    assert (zarr.open_group(folder / "out.zarr", mode="r")["0"][:] == expected).all()
    assert statistics.lr_pixels == sum(done) == plan.lr_pixels
    assert (statistics.blocks, statistics.failed, statistics.clipped) == (len(plan), {}, 0)


class SlowSource(SourceVolume):
    """A volume in memory whose slices take a while, and whose slice ``bad`` cannot be read."""

    def __init__(self, shape, seconds=0.0, bad=None):
        self.seconds, self.bad, self.reads = seconds, bad, []
        self.info = VolumeInfo(Path("slow"), "array", shape, np.dtype("u1"), "ZYX", (1, *shape[1:]))

    def read(self, z, rows, cols):
        self.reads.append(z)
        time.sleep(self.seconds)
        if z == self.bad:
            raise VolumeError(f"slice {z} of slow cannot be decoded")
        return np.full((rows.stop - rows.start, cols.stop - cols.start), z, np.uint8)

    def close(self):
        pass


def run(source, engine, write, plan):
    statistics = Statistics()
    blocks = map(plan.block_at, range(len(plan)))
    stream(blocks, source, engine, plan, Normalisation(0, 255, ""), np.dtype("u1"), write, statistics=statistics)
    return statistics


def deep(depth):
    return Plan((depth, 8, 8), ((0, depth), (0, 8), (0, 8)), 3, (8, 8), 0, (1, 8, 8), tile_is_given=True)


def test_reading_computing_and_writing_overlap(nearest_engine):
    # 20 blocks of 3 stages of 20 ms: 1.2 s one after another, 0.44 s side by side
    source, engine = SlowSource((20, 8, 8), 0.02), nearest_engine(0.02)
    statistics = run(source, engine, lambda finished: time.sleep(0.02), deep(20))
    assert statistics.seconds < 0.8
    assert statistics.network_s / statistics.seconds > 0.5
    assert engine.threads == {threading.current_thread().name}


@pytest.mark.parametrize("slow", ["network", "writing"])
def test_a_slow_stage_holds_the_others_back(slow, nearest_engine):
    source, ahead_of = SlowSource((60, 8, 8)), []
    engine = nearest_engine(0.005 if slow == "network" else 0)

    def write(finished):
        time.sleep(0.005 if slow == "writing" else 0)
        ahead_of.append(len(source.reads) - finished.block.index[0])

    run(source, engine, write, deep(60))
    # three wait on each side, and each of the three stages has one in its hands
    assert max(ahead_of) <= 3 + 3 + 4


def test_a_slice_that_cannot_be_read_becomes_zeros_and_a_reason(nearest_engine):
    written = []
    plan = Plan((6, 8, 8), ((0, 6), (0, 8), (0, 8)), 3, (4, 4), 0, (3, 8, 8), tile_is_given=True)
    statistics = run(SlowSource((6, 8, 8), bad=4), nearest_engine(), written.append, plan)
    assert statistics.failed == {4: "slice 4 of slow cannot be decoded"}
    assert [finished.failed for finished in written] == [{}, statistics.failed]
    assert [int(image.max()) for finished in written for image in finished.pixels] == [0, 1, 2, 3, 0, 5]


@pytest.mark.parametrize("where", ["read", "run", "write"])
def test_an_error_of_any_stage_ends_all_of_them(where, nearest_engine):
    def fail(*arguments):
        raise ZeroDivisionError(where)

    source, engine = SlowSource((50, 8, 8)), nearest_engine()
    if where != "write":
        setattr(source if where == "read" else engine, where, fail)
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError, match=where):
        run(source, engine, fail if where == "write" else lambda finished: None, deep(50))
    assert threading.active_count() == before
    assert len(source.reads) < 20


def test_threads_end_where_the_main_one_leaves_early():
    taken, before = [], threading.active_count()
    behind = BackgroundConsumer(taken.append, 2)
    with produced_ahead(iter(range(10**9)), 2) as numbers:
        for number in numbers:
            behind.give(number)
            if number == 9:
                break
    behind.stop()
    assert threading.active_count() == before
    assert taken == list(range(len(taken)))


def test_an_automatic_tile_is_halved_until_it_fits_and_stays_so(tmp_path, stack, use_nearest):
    # the test engine raises what torch raises on a GPU: no GPU is needed to see what follows
    engine = use_nearest(largest_px=120 * 120)
    done = infer(stack, tmp_path / "a.zarr", slices=":20", input_voxel="ignore")
    assert engine.shapes[0] == (192, 192)
    # once too large, then quarters with their halo of 32 px on two sides are still too large, then sixteenths
    assert engine.shapes[1:3] == [(128, 128), (80, 80)]
    assert all(rows * cols <= 120 * 120 for rows, cols in engine.shapes[2:])
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    with open_source(stack) as source:
        for z in range(20):
            image = source.read(z, slice(0, 192), slice(0, 192))
            assert (group["0"][z] == image.repeat(3, axis=0).repeat(3, axis=1)).all()
    assert group.attrs["emsr_fast"]["tile_halved"] == 2
    assert done["complete"]


def test_a_given_tile_is_never_changed(tmp_path, stack, use_nearest):
    engine = use_nearest(largest_px=120 * 120)
    with pytest.raises(BackendError, match=r"ran out of memory on a tile of 160x160 px .* smaller `tile`"):
        infer(stack, tmp_path / "a.zarr", tile=128, input_voxel="ignore")
    assert engine.shapes == [(160, 160)]
    assert not list(tmp_path.iterdir())

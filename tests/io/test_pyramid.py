"""The pyramid: each level is the mean of the one before, whole at shard borders and odd ends, and valid OME-Zarr."""

import itertools
from functools import partial

import numpy as np
import ome_zarr_models.v04
import ome_zarr_models.v05
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from emsr_fast.io.resize import block_means
from emsr_fast.io.volume import TargetSpec
from emsr_fast.io.writers import multiscale
from emsr_fast.io.writers.ome_zarr import Pyramid
from emsr_fast.publish import write_durably

ISOTROPIC, FLAT = (8.0, 8 / 3, 8 / 3), (40.0, 4.0, 4.0)


def means_by_definition(pixels, factor):
    """The level above, voxel by voxel."""
    shape = [-(-size // f) for size, f in zip(pixels.shape, factor, strict=True)]
    out = np.empty(shape, pixels.dtype)
    for index in itertools.product(*map(range, shape)):
        part = pixels[tuple(slice(at * f, (at + 1) * f) for at, f in zip(index, factor, strict=True))]
        mean = part.astype(np.float64).mean()
        out[index] = np.rint(mean) if pixels.dtype.kind in "ui" else mean
    return out


@pytest.fixture
def small_levels(monkeypatch):
    """Pyramids down to slices of 6 px, so that small volumes have several levels."""
    monkeypatch.setattr(multiscale, "_SMALLEST_LEVEL", 6)


def write(folder, pixels, shard, version="0.5", voxel=ISOTROPIC, order=None):
    spec = TargetSpec(pixels.shape, pixels.dtype, 3, voxel, first_slice=5, first_pixel=(10, 20))
    (folder / "unfinished").mkdir(parents=True)
    pyramid = Pyramid.create(
        folder / "a.zarr",
        spec,
        shard,
        title="a",
        version=version,
        pyramid=True,
        put=partial(write_durably, unfinished=folder / "unfinished"),
    )
    indices = list(pyramid.levels[0].indices())
    for index in order(indices) if order else indices:
        pyramid.write(0, index, pixels[pyramid.levels[0].place(index)])
        pyramid.raise_above(index)
    return pyramid


@pytest.mark.usefixtures("small_levels")
@settings(deadline=None, max_examples=25)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 40), st.integers(1, 40)),
    shard=st.tuples(st.integers(1, 5), st.integers(3, 30), st.integers(3, 30)),
    voxel=st.sampled_from([ISOTROPIC, FLAT, (None, None, None)]),
    version=st.sampled_from(["0.5", "0.4"]),
    dtype=st.sampled_from(["u1", "i2", "f4"]),
    random=st.randoms(use_true_random=False),
)
def test_every_level_is_the_mean_of_the_one_before(tmp_path_factory, shape, shard, voxel, version, dtype, random):
    pixels = np.random.default_rng(0).integers(-100 if dtype == "i2" else 0, 200, shape).astype(dtype)
    folder = tmp_path_factory.mktemp("pyramid")
    pyramid = write(folder, pixels, shard, version, voxel, order=lambda indices: random.sample(indices, len(indices)))
    group = zarr.open_group(folder / "a.zarr", mode="r")
    expected = pixels
    for number, level in enumerate(pyramid.levels):
        if number:
            expected = means_by_definition(expected, level.factor)
        assert not list(pyramid.missing(number))
        # an independent reader: zarr's own store and pipeline
        assert np.array_equal(group[str(number)][:], expected)
    assert not list((folder / "unfinished").iterdir())


def test_the_ecosystems_own_models_accept_it(tmp_path, small_levels):
    pixels = np.zeros((8, 50, 70), np.uint8)
    write(tmp_path / "5", pixels, (4, 24, 24))
    image = ome_zarr_models.v05.Image.from_zarr(zarr.open_group(tmp_path / "5" / "a.zarr", mode="r"))
    write(tmp_path / "4", pixels, (4, 24, 24), "0.4")
    older = ome_zarr_models.v04.Image.from_zarr(zarr.open_group(tmp_path / "4" / "a.zarr", mode="r"))
    assert zarr.open_group(tmp_path / "4" / "a.zarr", mode="r").metadata.zarr_format == 2
    for multiscales in (image.attributes.ome.multiscales, older.attributes.multiscales):
        (found,) = multiscales
        assert [axis.unit for axis in found.axes] == ["nanometer"] * 3
        assert len(found.datasets) == 5
        for number, dataset in enumerate(found.datasets):
            scale, shift = dataset.coordinateTransformations
            side = 8 / 3 * 2**number
            # z, 8 nm, is not halved before y and x are about as long
            deep = [8, 8, 8, 16, 32][number]
            assert scale.scale == pytest.approx([deep, side, side])
            # the outer edge of the first voxel is that of the input's slice 5, row 10, column 20, at every level
            edges = np.array(shift.translation) - np.array(scale.scale) / 2
            assert edges == pytest.approx([8 * 4.5, 8 * 9.5, 8 * 19.5])


def test_shards_hold_many_chunks_with_checksums(tmp_path):
    write(tmp_path, np.zeros((20, 1500, 1500), np.uint8), (16, 1500, 768))
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    assert group["0"].shards == (16, 1500, 768)
    assert group["0"].chunks == (16, 250, 256)
    assert "crc32c" in (tmp_path / "a.zarr" / "0" / "zarr.json").read_text()
    # shards of zeros are files too
    assert sum(path.is_file() for path in (tmp_path / "a.zarr" / "0" / "c").rglob("*")) == 4


def test_a_level_above_waits_for_all_its_parts_and_goes_with_them(tmp_path, small_levels):
    pixels = np.arange(2 * 24 * 24, dtype=np.float32).reshape(2, 24, 24)
    pyramid = write(tmp_path, pixels, (2, 12, 12))
    pyramid.forget((0, 1, 0))
    assert list(pyramid.missing(0)) == [(0, 1, 0)]
    assert list(pyramid.missing(1)) == [(0, 0, 0)]
    pyramid.raise_above((0, 0, 0))
    assert list(pyramid.missing(1)) == [(0, 0, 0)]
    pyramid.write(0, (0, 1, 0), pixels[:, 12:, :12])
    pyramid.raise_above((0, 1, 0))
    assert not list(pyramid.missing(1)) + list(pyramid.missing(2))


def test_means_of_integers_round_half_to_even_and_do_not_overflow():
    pixels = np.array([[[250, 251], [255, 254]], [[1, 2], [1, 2]]], np.uint8)
    assert block_means(pixels, (1, 2, 2)).tolist() == [[[252]], [[2]]]
    assert block_means(pixels[:, :, :1], (2, 2, 2)).tolist() == [[[127]]]

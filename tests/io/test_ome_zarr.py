"""OME-Zarr in and out: valid by the ecosystem's own model, cross-read by zarr-python."""

import numpy as np
import pytest
import zarr
from ome_zarr_models.v05 import Image

from emsr_fast.errors import VolumeError
from emsr_fast.io.registry import create_target, open_source
from emsr_fast.io.volume import TargetSpec
from emsr_fast.io.voxels import UNKNOWN

EVERYTHING = slice(None)
SHAPE = (3, 50, 70)


def stack(dtype=np.uint16):
    return np.random.default_rng(0).integers(0, 120, SHAPE).astype(dtype)


def write_all(path, pixels, voxel_size_nm=UNKNOWN, **spec):
    block = spec.setdefault("block", 24)
    _, height, width = pixels.shape
    with create_target(path, TargetSpec(pixels.shape, pixels.dtype, 3, voxel_size_nm, **spec)) as target:
        for z, image in enumerate(pixels):
            for y in range(0, height, block):
                for x in range(0, width, block):
                    rows, cols = slice(y, min(y + block, height)), slice(x, min(x + block, width))
                    target.write(z, rows, cols, image[rows, cols])
        target.commit()


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.float32])
@pytest.mark.parametrize("voxel", [UNKNOWN, (30.0, 10.0, 10 / 3), (None, 4.0, 4.0)], ids=str)
def test_our_folders_are_read_back_by_zarr_and_by_us(tmp_path, dtype, voxel):
    pixels = stack(dtype)
    write_all(tmp_path / "a.ome.zarr", pixels, voxel, provenance={"model": "m"})
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.ome.zarr"]
    group = zarr.open_group(tmp_path / "a.ome.zarr", mode="r")
    assert (group["0"][:] == pixels).all()
    assert group["0"].dtype == dtype
    assert group.attrs["emsr_fast"]["model"] == "m"
    with open_source(tmp_path / "a.ome.zarr") as source:
        assert source.info.voxel_size_nm == voxel
        assert source.dtype == dtype
        assert source.shape == SHAPE
        for z in range(3):
            assert (source.read(z, EVERYTHING, EVERYTHING) == pixels[z]).all()
        assert (source.read(1, slice(20, 30), slice(23, 49)) == pixels[1, 20:30, 23:49]).all()


def test_the_metadata_is_valid_ome_zarr_in_nanometres(tmp_path):
    write_all(tmp_path / "a.zarr", stack(), (30.0, 10.0, 10.0), first_slice=5)
    multiscale = Image.from_zarr(zarr.open_group(tmp_path / "a.zarr", mode="r")).attributes.ome.multiscales[0]
    assert [(axis.name, axis.type, axis.unit) for axis in multiscale.axes] == [(n, "space", "nanometer") for n in "zyx"]
    scale, translation = multiscale.datasets[0].coordinateTransformations
    assert scale.scale == [30.0, 10.0, 10.0]
    # the input's first voxel centre is the origin: slice 5, and one HR pixel before the LR pixel's centre
    assert translation.translation == [150.0, -10.0, -10.0]


def test_an_unknown_voxel_size_is_not_claimed_to_be_anything(tmp_path):
    write_all(tmp_path / "a.zarr", stack())
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    multiscale = Image.from_zarr(group).attributes.ome.multiscales[0]
    assert [axis.unit for axis in multiscale.axes] == [None] * 3
    assert multiscale.datasets[0].coordinateTransformations[0].scale == [1.0, 1 / 3, 1 / 3]
    assert group.attrs["emsr_fast"]["voxel_size_nm"] is None


@pytest.mark.parametrize(("block", "chunk"), [(96, 96), (768, 256), (1536, 256), (3 * 340, 255), (3 * 716, 358)])
def test_no_two_blocks_share_a_file(tmp_path, block, chunk):
    with create_target(tmp_path / "a.zarr", TargetSpec((1, 400, 2500), np.dtype("u1"), 3, block=block)) as target:
        target.commit()
    array = zarr.open_group(tmp_path / "a.zarr", mode="r")["0"]
    assert array.shards == (1, min(block, 400), block)
    assert block % array.chunks[2] == 0
    assert array.chunks[2] == chunk


def test_a_chunk_that_does_not_decode_is_named(tmp_path):
    write_all(tmp_path / "a.zarr", stack())
    chunk = next((tmp_path / "a.zarr" / "0" / "c" / "2").rglob("0"))
    (chunk if chunk.is_file() else chunk / "0").write_bytes(b"nonsense")
    with (
        open_source(tmp_path / "a.zarr") as source,
        pytest.raises(VolumeError, match=r"slice 2 of .* cannot be decoded"),
    ):
        source.read(2, EVERYTHING, EVERYTHING)

"""Every format we write: read back by us and by an independent reader, with dtype, axes and voxel size."""

import json

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile
import zarr
from mrcfile.dtypes import get_ext_header_dtype

from emsr_fast.errors import VolumeError
from emsr_fast.io.registry import create_target, open_source
from emsr_fast.io.volume import TargetSpec
from emsr_fast.io.voxels import UNKNOWN

EVERYTHING = slice(None)
DTYPES = [np.uint8, np.int8, np.uint16, np.int16, np.float32]
SIZES = [UNKNOWN, (30.0, 10.0, 10 / 3), (None, 4.0, 5.0)]


def stack(dtype, shape=(3, 50, 70)):
    return np.random.default_rng(0).integers(-100 if np.dtype(dtype).kind != "u" else 0, 120, shape).astype(dtype)


def write_all(path, pixels, voxel_size_nm=UNKNOWN, block=24, **spec):
    """Write ``pixels`` in ragged blocks and in a shuffled order."""
    depth, height, width = pixels.shape
    corners = [(z, y, x) for z in range(depth) for y in range(0, height, block) for x in range(0, width, block)]
    np.random.default_rng(1).shuffle(corners)
    spec = TargetSpec(pixels.shape, pixels.dtype, 3, voxel_size_nm, block=block, **spec)
    with create_target(path, spec) as target:
        for z, y, x in corners:
            rows, cols = slice(y, min(y + block, height)), slice(x, min(x + block, width))
            target.write(int(z), rows, cols, pixels[z, rows, cols])
        target.commit()


def by_zarr(path):
    return zarr.open_group(path, mode="r")["0"][:]


def by_h5py(path):
    with h5py.File(path) as file:
        return file["raw"][:]


def by_mrcfile(path):
    assert mrcfile.validate(path)
    with mrcfile.open(path) as file:
        return file.data.copy()


READERS = {"a.ome.zarr": by_zarr, "a.ome.tif": tifffile.imread, "a.h5": by_h5py, "a.mrc": by_mrcfile}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("voxel", SIZES, ids=str)
def test_what_is_written_is_what_is_read(tmp_path, name, dtype, voxel):
    pixels = stack(dtype)
    write_all(tmp_path / name, pixels, voxel, provenance={"software": "emsr_fast 0", "model": "m"})
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    # the one dtype that MRC has no place for is widened
    kept = np.dtype(np.uint16 if name == "a.mrc" and dtype == np.uint8 else dtype)
    theirs = READERS[name](tmp_path / name)
    assert theirs.dtype == kept
    np.testing.assert_array_equal(theirs, pixels)
    with open_source(tmp_path / name) as source:
        assert source.dtype == kept
        assert source.shape == pixels.shape
        for found, size in zip(source.info.voxel_size_nm, voxel, strict=True):
            assert found == (size if size is None else pytest.approx(size, rel=1e-6))
        for z in range(len(pixels)):
            np.testing.assert_array_equal(source.read(z, EVERYTHING, EVERYTHING), pixels[z])
        np.testing.assert_array_equal(source.read(1, slice(20, 30), slice(23, 49)), pixels[1, 20:30, 23:49])


def test_hdf5_says_what_others_look_for(tmp_path):
    write_all(tmp_path / "a.h5", stack(np.uint8), (30.0, 10.0, 10.0), provenance={"model": "m", "tile": 24})
    with h5py.File(tmp_path / "a.h5") as file:
        data = file["raw"]
        assert list(data.attrs["element_size_um"]) == pytest.approx([0.03, 0.01, 0.01])
        assert [axis.label for axis in data.dims] == ["z", "y", "x"]
        assert json.loads(data.attrs["emsr_fast"]) == {"model": "m", "tile": 24}
        assert data.chunks == (1, 24, 24)


def test_an_unknown_size_leaves_no_size_in_hdf5_and_mrc(tmp_path):
    for name in ("a.h5", "a.mrc"):
        write_all(tmp_path / name, stack(np.uint8))
    with h5py.File(tmp_path / "a.h5") as file:
        assert "element_size_um" not in file["raw"].attrs
    with mrcfile.open(tmp_path / "a.mrc") as file:
        assert file.voxel_size.tolist() == (0, 0, 0)


def test_mrc_has_statistics_and_settings(tmp_path):
    pixels = stack(np.float32)
    write_all(tmp_path / "a.mrc", pixels, (30.0, 10.0, 10.0), provenance={"software": "emsr_fast 0", "a": {"b": 1}})
    with mrcfile.open(tmp_path / "a.mrc") as file:
        assert file.header.dmin == pixels.min()
        assert file.header.dmax == pixels.max()
        assert file.header.dmean == pytest.approx(pixels.mean(), rel=1e-5)
        assert file.header.rms == pytest.approx(pixels.std(), rel=1e-5)
        assert file.voxel_size.tolist() == pytest.approx((100, 100, 300))
        assert file.get_labels() == ["emsr_fast 0", "a.b=1"]
        assert not file.is_image_stack()


def test_mrc_labels_have_what_is_wrong_with_the_data_first_and_hashes_last():
    from emsr_fast.io.writers.mrc import _labels

    settings = {f"setting_{number}": "x" * 40 for number in range(30)}
    provenance = {"software": "emsr_fast 0", "model_sha256": "f" * 64, "run": "e" * 64, **settings,
                  "absent_chunks": {"not_stored": 3}, "bounded_pixels": 7, "failed_slices": {"1": "cut"}}  # fmt: skip
    lines = _labels(TargetSpec((1, 2, 2), np.dtype("u2"), 1, UNKNOWN, provenance=provenance))
    assert len(lines) == 10
    assert lines[0] == b"emsr_fast 0"
    assert lines[1] == b"absent_chunks.not_stored=3; bounded_pixels=7; failed_slices.1=cut"
    assert not any(b"sha256" in line or b"run=" in line for line in lines)


def test_mrc_with_voxels_missing_claims_no_statistics(tmp_path):
    spec = TargetSpec((2, 6, 6), np.dtype("f4"), 3)
    with create_target(tmp_path / "a.mrc", spec) as target:
        target.write(0, slice(0, 6), slice(0, 6), np.ones((6, 6), np.float32))
        target.commit()
    with mrcfile.open(tmp_path / "a.mrc") as file:
        assert file.header.dmax < file.header.dmin


def test_the_extended_header_of_an_mrc_input_is_kept(tmp_path):
    records = np.zeros(4, get_ext_header_dtype(b"FEI1", "<"))
    records["Metadata size"], records["Pixel size X"], records["Pixel size Y"] = records.itemsize, 3e-8, 3e-8
    records["Alpha tilt"] = [1, 2, 3, 4]
    for kind, extended in ((b"FEI1", records), (b"SERI", np.frombuffer(bytes(range(80)), "V80"))):
        path = tmp_path / f"{kind.decode()}.mrc"
        with mrcfile.new(path) as file:
            file.set_data(stack(np.int16, (4, 6, 9)))
            file.set_extended_header(extended)
            file.header.exttyp = kind
        with open_source(path) as source:
            assert f"extended header {kind.decode()}" in source.info.notes[0]
            carried = source.info.carried
        write_all(tmp_path / f"out_{path.name}", stack(np.int16, (2, 18, 27)), (40.0, 10.0, 10.0), carried=carried,
                  first_slice=1)  # fmt: skip
    with mrcfile.open(tmp_path / "out_FEI1.mrc") as file:
        kept = file.indexed_extended_header
        assert kept["Alpha tilt"].tolist() == [2, 3]  # of the slices written
        assert kept["Pixel size X"] == pytest.approx([1e-8, 1e-8])
        np.testing.assert_array_equal(file.data, stack(np.int16, (2, 18, 27)))
    with mrcfile.open(tmp_path / "out_SERI.mrc") as file:
        assert bytes(file.extended_header) == bytes(range(80))
        assert bytes(file.header.exttyp) == b"SERI"


@pytest.mark.parametrize("name", ["a.h5", "a.mrc"])
def test_nothing_is_left_of_what_was_not_finished(tmp_path, name):
    spec = TargetSpec((1, 6, 6), np.dtype("u1"), 3)
    with create_target(tmp_path / name, spec) as target:
        target.write(0, slice(0, 6), slice(0, 6), np.ones((6, 6), np.uint8))
    assert not list(tmp_path.iterdir())
    (tmp_path / name).write_bytes(b"my thesis")
    with pytest.raises(VolumeError, match="not overwritten"):
        create_target(tmp_path / name, spec, overwrite=True)

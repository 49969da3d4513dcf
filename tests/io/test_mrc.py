"""MRC in: what mrcfile and IMOD write, their signs, axes and cells."""

import struct

import mrcfile
import numpy as np
import pytest

from emsr_fast.errors import VolumeError
from emsr_fast.io.registry import open_source
from emsr_fast.io.voxels import UNKNOWN

EVERYTHING = slice(None)


def written(path, pixels, voxel=None, **header):
    with mrcfile.new(path) as file:
        file.set_data(pixels)
        if voxel:
            file.voxel_size = voxel
        for name, value in header.items():
            file.header[name] = value
    return path


def stack(dtype=np.int16, shape=(3, 8, 9)):
    return np.random.default_rng(0).integers(0, 120, shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint16, np.float32, np.float16])
def test_every_mode_is_read_in_place(tmp_path, dtype):
    pixels = stack(dtype)
    with open_source(written(tmp_path / "a.mrc", pixels, (40.0, 50.0, 300.0))) as source:
        assert source.info.voxel_size_nm == pytest.approx((30, 5, 4))
        assert source.info.voxel_size_from == "MRC cell"
        assert source.dtype == dtype
        for z in range(3):
            np.testing.assert_array_equal(source.read(z, slice(2, 7), EVERYTHING), pixels[z, 2:7])


def test_files_of_either_byte_order(tmp_path):
    pixels = stack()
    path = written(tmp_path / "a.mrc", pixels, 40.0)
    raw = bytearray(path.read_bytes())
    for start, stop, size in ((0, 104, 4), (108, 112, 4), (196, 208, 4), (216, 224, 4), (1024, len(raw), 2)):
        raw[start:stop] = np.frombuffer(bytes(raw[start:stop]), f"u{size}").byteswap().tobytes()
    raw[212:214] = b"\x11\x11"
    path.write_bytes(raw)
    with open_source(path) as source:
        assert source.info.voxel_size_nm == pytest.approx((4, 4, 4))
        assert source.dtype.isnative
        np.testing.assert_array_equal(source.read(2, EVERYTHING, EVERYTHING), pixels[2])


def test_imod_says_whether_its_bytes_have_a_sign(tmp_path):
    # as bytes with a sign, around 0
    pixels = stack(np.uint8) // 4 - np.uint8(20)
    path = written(tmp_path / "a.mrc", pixels.view(np.int8))
    with open_source(path) as source:
        assert source.dtype == np.int8
    raw = bytearray(path.read_bytes())
    raw[152:160] = struct.pack("<ii", 1146047817, 0)
    path.write_bytes(raw)
    with open_source(path) as source:
        assert source.dtype == np.uint8
        np.testing.assert_array_equal(source.read(1, EVERYTHING, EVERYTHING), pixels[1])


@pytest.mark.parametrize(("cell", "expected"), [(0.0, UNKNOWN), (1.0, UNKNOWN)])
def test_what_writers_put_for_unknown_is_unknown(tmp_path, cell, expected):
    with open_source(written(tmp_path / "a.mrc", stack(), cell)) as source:
        assert source.info.voxel_size_nm == expected
        assert ("1 Angstrom" in " ".join(source.info.notes)) == (cell == 1)


def test_axes_stored_in_another_order_are_put_right(tmp_path):
    pixels = stack(shape=(8, 3, 9))  # sections are y, rows z
    path = written(tmp_path / "a.mrc", pixels, (40.0, 50.0, 60.0), mapr=3, maps=2, mx=9, my=8, mz=3)
    with open_source(path) as source:
        assert source.shape == (3, 8, 9)
        assert source.info.axes == "YZX"
        np.testing.assert_array_equal(source.read(1, EVERYTHING, EVERYTHING), pixels[:, 1])


def test_one_image_and_image_stacks(tmp_path):
    with open_source(written(tmp_path / "a.mrc", stack()[0])) as source:
        assert source.shape == (1, 8, 9)
    with mrcfile.new(tmp_path / "b.mrc") as file:
        file.set_data(stack())
        file.set_image_stack()
    with open_source(tmp_path / "b.mrc") as source:
        assert source.info.format == "MRC image stack"
        assert source.shape == (3, 8, 9)


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, 10**6, "truncated"),
        (8, 2**31 - 1, "truncated"),
        (0, 0, "corrupt"),
        (8, -1, "corrupt"),
        (12, 7, "mode 7"),
        (12, 4, "truncated"),
        (92, 2**30, "truncated"),
        (92, -5, "corrupt"),
        (64, 9, "axes are"),
    ],
)
def test_headers_that_cannot_be_true_are_refused(tmp_path, at, value, message):
    path = written(tmp_path / "a.mrc", stack())
    raw = bytearray(path.read_bytes())
    raw[at : at + 4] = struct.pack("<i", value)
    path.write_bytes(raw)
    with pytest.raises(VolumeError, match=message):
        open_source(path)


def test_a_cut_file_is_refused(tmp_path):
    path = written(tmp_path / "a.mrc", stack())
    whole = path.read_bytes()
    for length in (300, 1023, 1024, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(VolumeError, match="truncated"):
            open_source(path)

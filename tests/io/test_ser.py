"""SER files of TIA: both versions, types, series that stopped early, and what is refused."""

import struct

import numpy as np
import pytest

from emsr_fast.errors import VolumeError
from emsr_fast.io.registry import open_source
from ser_files import write_ser

STACK = (np.arange(3 * 7 * 9).reshape(3, 7, 9) * 5).astype("u2")


@pytest.mark.parametrize("version", [0x210, 0x220])
def test_a_series_of_either_version_is_read_top_row_first(tmp_path, version):
    with open_source(write_ser(tmp_path / "a.ser", STACK, version=version)) as source:
        assert source.info.format == f"TIA SER 0x{version:x}"
        assert (source.shape, source.dtype) == (STACK.shape, np.uint16)
        assert source.info.voxel_size_nm == (None, 2.0, 3.0)
        assert source.info.notes == ()
        for z, plane in enumerate(STACK):
            np.testing.assert_array_equal(source.read(z, slice(None), slice(None)), plane)
        np.testing.assert_array_equal(source.read(1, slice(2, 5), slice(3, 8)), STACK[1, 2:5, 3:8])
        np.testing.assert_array_equal(source.read(2, slice(0, 3), slice(None)), STACK[2, :3])


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "f4"])
def test_pixels_of_kept_types_keep_their_type(tmp_path, dtype):
    plane = (STACK[:1] % 100).astype(dtype)
    with open_source(write_ser(tmp_path / "a.ser", plane)) as source:
        assert source.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(source.read(0, slice(None), slice(None)), plane[0])


@pytest.mark.parametrize(
    ("dtype", "made", "words"),
    [
        ("u4", "f4", "uint32 is read as float32"),
        ("i4", "f4", "int32 is read as float32"),
        ("f8", "f8", "float64 is processed and written as float32"),
    ],
)
def test_pixels_of_other_types_become_a_kept_type_and_it_is_said(tmp_path, dtype, made, words):
    with open_source(write_ser(tmp_path / "a.ser", STACK.astype(dtype))) as source:
        assert source.dtype == np.dtype(made)
        assert source.info.notes[0].startswith(words)
        np.testing.assert_array_equal(source.read(1, slice(None), slice(None)), STACK[1])


@pytest.mark.parametrize("step", [0.0, 1.0, 2.5e7, 5e-3, float("nan"), float("inf")])
def test_a_pixel_size_that_is_none_is_unknown(tmp_path, step):
    with open_source(write_ser(tmp_path / "a.ser", STACK, step_m=(step, step))) as source:
        assert source.info.voxel_size_nm == (None, None, None)


def test_a_series_that_stopped_early_has_the_images_that_were_recorded(tmp_path):
    with open_source(write_ser(tmp_path / "a.ser", STACK, planned=20)) as source:
        assert source.shape == STACK.shape
        assert source.info.notes == ("3 of the 20 images that were planned have been recorded",)


def test_a_series_of_which_nothing_was_recorded_says_so(tmp_path):
    path = write_ser(tmp_path / "a.ser", STACK[:0], planned=20)
    with pytest.raises(VolumeError, match="holds no image: none of the 20 that were planned was recorded"):
        open_source(path)


def test_images_of_different_sizes_are_no_stack(tmp_path):
    path = write_ser(tmp_path / "a.ser", STACK)
    data = bytearray(path.read_bytes())
    second = data.index(struct.pack("<hii", 2, 9, 7), data.index(struct.pack("<hii", 2, 9, 7)) + 1)
    data[second + 2 : second + 10] = struct.pack("<ii", 7, 9)
    path.write_bytes(data)
    with pytest.raises(VolumeError, match="image 1 is 9 x 7, image 0 is 7 x 9"):
        open_source(path)


def cleared(path, number):
    """Clear the type and the size of image ``number``, as an acquisition that is stopped leaves them."""
    data = bytearray(path.read_bytes())
    (table,) = struct.unpack_from("<q", data, 22)
    (place,) = struct.unpack_from("<q", data, table + 8 * number)
    data[place + 40 : place + 50] = bytes(10)
    path.write_bytes(data)
    return path


def test_images_without_a_size_have_that_of_the_first(tmp_path):
    with open_source(cleared(cleared(write_ser(tmp_path / "a.ser", STACK), 1), 2)) as source:
        assert source.info.notes == ("2 images of the series without a size or type: taken as image 0's",)
        for z, plane in enumerate(STACK):
            np.testing.assert_array_equal(source.read(z, slice(None), slice(None)), plane)


def test_a_first_image_without_a_size_is_damage(tmp_path):
    with pytest.raises(VolumeError, match="its first image has data type 0 and 0 x 0 pixels"):
        open_source(cleared(write_ser(tmp_path / "a.ser", STACK), 0))


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ({"content": 0x4120}, "holds spectra, not images"),
        ({"content": 0x4121}, "neither images nor spectra"),
        ({"version": 0x230}, "version 0x230"),
        ({"stack": STACK.astype("c8")}, "complex numbers"),
    ],
)
def test_what_is_no_grey_image_is_refused_by_name(tmp_path, made, reason):
    with pytest.raises(VolumeError, match=reason):
        open_source(write_ser(tmp_path / "a.ser", **{"stack": STACK, **made}))


def test_a_list_of_more_images_than_the_file_can_hold_is_refused(tmp_path):
    path = write_ser(tmp_path / "a.ser", STACK[:1])
    data = bytearray(path.read_bytes())
    # one image, listed again and again
    count, at = 5000, len(data)
    (place,) = struct.unpack_from("<q", data, struct.unpack_from("<q", data, 22)[0])
    struct.pack_into("<iiq", data, 14, count, count, at)
    path.write_bytes(data + struct.pack("<q", place) * count)
    with pytest.raises(VolumeError, match="its list of 5000 images, 5000 of them recorded, should begin at byte"):
        open_source(path)


def test_the_file_that_describes_a_series_is_not_it(tmp_path):
    (tmp_path / "a.emi").write_bytes(b"JL" + bytes(200))
    with pytest.raises(
        VolumeError, match=r"a\.emi describes a series of TIA and is not read; give the \.ser file beside"
    ):
        open_source(tmp_path / "a.emi")


def test_a_key_has_nothing_to_choose(tmp_path):
    with pytest.raises(VolumeError, match="leave `key=1` out"):
        open_source(write_ser(tmp_path / "a.ser", STACK), "1")


def test_a_file_cut_anywhere_is_refused_in_one_line(tmp_path):
    whole = write_ser(tmp_path / "a.ser", STACK).read_bytes()
    cut = tmp_path / "cut.ser"
    for length in range(4, len(whole) - 8, 7):
        cut.write_bytes(whole[:length])
        with pytest.raises(VolumeError, match="truncated") as caught:
            open_source(cut)
        assert "\n" not in str(caught.value)

"""Image files and folders of them as a stack."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from emsr_fast.errors import VolumeError
from emsr_fast.io.readers.parts.image_names import natural_key
from emsr_fast.io.registry import open_source
from emsr_fast.io.voxels import UNKNOWN

EVERYTHING = slice(None)


def picture(seed=0, dtype=np.uint8, shape=(20, 30)):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape).astype(dtype)


def test_a_real_png_is_one_slice(examples):
    path = examples / "rat_spinal_whitematter_sem_70nm_512.png"
    with open_source(path) as source:
        assert source.info.shape == (1, 512, 512)
        assert source.info.format == "PNG"
        assert (source.read(0, slice(3, 70), slice(9, 11)) == np.asarray(Image.open(path))[3:70, 9:11]).all()


@pytest.mark.parametrize(
    ("suffix", "dtype"), [("png", np.uint8), ("png", np.uint16), ("tif", np.uint16), ("jpg", np.uint8)]
)
def test_a_folder_is_a_stack_in_natural_order(tmp_path, suffix, dtype):
    order = [10, 9, 1, 100, 2]
    for number in order:
        flat = np.full((8, 9), number, dtype)  # flat: JPEG keeps it exactly
        Image.fromarray(flat).save(tmp_path / f"slice_{number}.{suffix}")
    (tmp_path / ".hidden.png").write_bytes(b"no image")
    (tmp_path / "notes.txt").write_text("no image either")
    (tmp_path / "sub").mkdir()
    with open_source(tmp_path) as source:
        assert source.shape == (5, 8, 9)
        assert source.dtype == dtype
        assert [int(source.read(z, EVERYTHING, EVERYTHING)[7, 8]) for z in range(5)] == sorted(order)
        assert source.info.notes == (
            "1 other file skipped: notes.txt",
            "numbers run from 1 to 100, missing: 3 to 8, 11 to 99",
        )
        assert source.info.voxel_size_nm == UNKNOWN


def test_numbers_sort_by_value():
    names = ["b2", "a10", "a9", "A1", "a01", "10", "9", "a9b", "a"]
    assert sorted(names, key=natural_key) == ["9", "10", "a", "a01", "A1", "a9", "a9b", "a10", "b2"]


def test_mixed_tiff_and_png_agree_in_pixels(tmp_path):
    Image.fromarray(picture(0)).save(tmp_path / "0.png")
    tifffile.imwrite(tmp_path / "1.tiff", picture(1), compression="zlib")
    with open_source(tmp_path) as source:
        for z in range(2):
            assert (source.read(z, EVERYTHING, EVERYTHING) == picture(z)).all()


def test_the_pixel_size_of_tiff_slices_is_kept_and_z_stays_unknown(tmp_path):
    for number in range(2):
        tifffile.imwrite(tmp_path / f"{number}.tif", picture(), resolution=(1e6, 1e6), resolutionunit="CENTIMETER")
    with open_source(tmp_path) as source:
        assert source.info.voxel_size_nm == (None, 10.0, 10.0)
    tifffile.imwrite(tmp_path / "2.tif", picture(), resolution=(2e6, 2e6), resolutionunit="CENTIMETER")
    with open_source(tmp_path) as source:
        assert source.info.voxel_size_nm == UNKNOWN
        assert "different pixel sizes" in source.info.notes[0]


def test_a_screen_resolution_is_no_pixel_size(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "a.png", dpi=(300, 300))
    with open_source(tmp_path / "a.png") as source:
        assert source.info.voxel_size_nm == UNKNOWN
        assert "300 dpi" in source.info.notes[0]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (picture(shape=(20, 31)), r"2\.png is 20x31 uint8, but 1\.png is 20x30 uint8"),
        (picture(dtype=np.uint16), r"2\.png is 20x30 uint16, but 1\.png is 20x30 uint8"),
        (picture(shape=(20, 30, 3)), r"2\.png is a colour image: red, green and blue differ"),
        (picture(shape=(20, 30, 4)), r"2\.png is a colour image: red, green and blue differ"),
        (picture(shape=(20, 30, 2)), r"2\.png has an alpha channel"),
    ],
)
def test_the_file_that_does_not_fit_is_named(tmp_path, other, message):
    Image.fromarray(picture()).save(tmp_path / "1.png")
    Image.fromarray(other).save(tmp_path / "2.png")
    with pytest.raises(VolumeError, match=message):
        open_source(tmp_path)


def test_images_without_grey_values_are_refused(tmp_path):
    Image.fromarray(picture(shape=(20, 30, 3))).quantize(9).save(tmp_path / "a.png")
    with pytest.raises(VolumeError, match="colour palette"):
        open_source(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_cut_image_is_named_when_it_is_read(tmp_path, suffix):
    Image.fromarray(picture(shape=(200, 300))).save(tmp_path / f"a.{suffix}")
    data = (tmp_path / f"a.{suffix}").read_bytes()
    (tmp_path / f"a.{suffix}").write_bytes(data[: len(data) // 2])
    with (
        open_source(tmp_path / f"a.{suffix}") as source,
        pytest.raises(VolumeError, match=rf"a\.{suffix} (cannot be decoded|is damaged)"),
    ):
        source.read(0, EVERYTHING, EVERYTHING)


def test_a_stack_among_the_slices_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 9, 9), np.uint8), photometric="minisblack")
    with pytest.raises(VolumeError, match=r"a\.tif holds 4 slices"):
        open_source(tmp_path)


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("no image")
    with pytest.raises(VolumeError, match="holds no slices, such as PNG, TIFF"):
        open_source(tmp_path)


@pytest.mark.parametrize(("name", "kind"), [("text.png", "PNG"), ("text.JPG", "JPEG"), ("text.tif", "TIFF")])
def test_a_name_that_promises_another_content(tmp_path, name, kind):
    (tmp_path / name).write_text("this is no image, whatever its name says")
    with pytest.raises(
        VolumeError, match=f"ends in .{name.partition('.')[2]}, but its content is not {kind}; give TIFF"
    ):
        open_source(tmp_path / name)

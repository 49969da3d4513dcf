"""DigitalMicrograph files: both versions and byte orders, types, units, several images, and what is refused."""

import numpy as np
import pytest

from dm_files import image, thumbnail, write_dm
from emsr_fast.errors import VolumeError
from emsr_fast.io.registry import open_source

NM = ((30.0, "nm"), (4.0, "nm"), (5.0, "nm"))


def pixels(dtype="u2", shape=(3, 7, 9)):
    limit = 200 if np.dtype(dtype).kind == "u" else 100
    return (np.arange(np.prod(shape)).reshape(shape) * 7 % limit).astype(dtype)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [3, 4])
def test_a_stack_of_either_version_and_byte_order_is_read(tmp_path, version, order):
    stack = pixels()
    path = write_dm(tmp_path / "a.dm", thumbnail(), image(stack, steps=NM), version=version, order=order)
    with open_source(path) as source:
        assert source.info.format == f"DigitalMicrograph {version}"
        assert source.shape == stack.shape
        assert source.dtype == np.uint16
        assert source.info.voxel_size_nm == (30.0, 4.0, 5.0)
        assert source.info.voxel_size_from == "DigitalMicrograph calibration"
        for z, slice_ in enumerate(stack):
            np.testing.assert_array_equal(source.read(z, slice(None), slice(None)), slice_)
        np.testing.assert_array_equal(source.read(1, slice(2, 5), slice(3, 8)), stack[1, 2:5, 3:8])


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "f4"])
def test_pixels_of_kept_types_keep_their_type(tmp_path, dtype):
    plane = pixels(dtype, (6, 5))
    path = write_dm(tmp_path / "a.dm4", thumbnail(), image(plane, steps=((2.0, "nm"), (2.0, "nm"))))
    with open_source(path) as source:
        assert source.dtype == np.dtype(dtype)
        assert source.shape == (1, 6, 5)
        assert source.info.voxel_size_nm == (None, 2.0, 2.0)
        np.testing.assert_array_equal(source.read(0, slice(None), slice(None)), plane)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("dtype", "made", "words"),
    [
        ("i4", "f4", "int32 is read as float32"),
        ("u4", "f4", "uint32 is read as float32"),
        ("f8", "f8", "float64 is processed and written as float32"),
        ("b1", "u1", "bool is read as uint8"),
    ],
)
def test_pixels_of_other_types_become_a_kept_type_and_it_is_said(tmp_path, dtype, made, words, order):
    plane = pixels("u1", (6, 5)) % 2 == 1 if dtype == "b1" else pixels(dtype, (6, 5))
    with open_source(write_dm(tmp_path / "a.dm3", thumbnail(), image(plane), version=3, order=order)) as source:
        assert source.dtype == np.dtype(made)
        assert any(note.startswith(words) for note in source.info.notes)
        np.testing.assert_array_equal(source.read(0, slice(None), slice(None)), plane * (255 if dtype == "b1" else 1))


@pytest.mark.parametrize("shape", [(3, 1, 6, 5), (1, 3, 6, 5)])
def test_axes_of_one_pixel_are_dropped(tmp_path, shape):
    stack = pixels(shape=shape)
    steps = ((30, "nm") if shape[0] == 3 else (1, "s"), (1, "s") if shape[0] == 3 else (30, "nm"), (4, "nm"), (5, "nm"))
    with open_source(write_dm(tmp_path / "a.dm4", thumbnail(), image(stack, steps=steps))) as source:
        assert source.shape == (3, 6, 5)
        assert source.info.voxel_size_nm == (30, 4, 5)
        np.testing.assert_array_equal(source.read(2, slice(None), slice(None)), stack.reshape(3, 6, 5)[2])


@pytest.mark.parametrize(
    ("step", "size_nm"),
    [
        ((0.5, "µm"), 500.0),
        ((0.5, "um"), 500.0),
        ((7.0, "pm"), 0.007),
        ((3.0, "Å"), 0.3),
        ((3.0, "A"), 0.3),
        ((4.0, "nm"), 4.0),
        ((-4.0, "nm"), 4.0),
        ((4.0, "nm\x00\x00"), 4.0),
        ((1.0, ""), None),
    ],
)
def test_units_become_nanometres(tmp_path, step, size_nm):
    path = write_dm(tmp_path / "a.dm3", thumbnail(), image(pixels(shape=(4, 4)), steps=(step, step)), version=3)
    with open_source(path) as source:
        y = source.info.voxel_size_nm[1]
        assert y == (size_nm if size_nm is None else pytest.approx(size_nm, rel=1e-6))
        assert source.info.notes == ()


def test_a_metre_is_no_pixel(tmp_path):
    path = write_dm(tmp_path / "a.dm4", thumbnail(), image(pixels(shape=(4, 4)), steps=((1.0, "m"), (5.0, "nm"))))
    with open_source(path) as source:
        assert source.info.voxel_size_nm == (None, None, 5.0)
        assert source.info.notes == ("the calibration of y (1 m) is no pixel of a microscope: taken as unknown",)


def test_a_calibration_that_is_no_length_is_said_and_not_taken(tmp_path):
    path = write_dm(tmp_path / "a.dm4", thumbnail(), image(pixels(shape=(4, 4)), steps=((0.1, "1/nm"), (0.1, "1/nm"))))
    with open_source(path) as source:
        assert source.info.voxel_size_nm == (None, None, None)
        assert any("the calibration of y is not a length (0.1 1/nm)" in note for note in source.info.notes)


def test_an_image_without_calibration_or_thumbnail_is_read(tmp_path):
    plane = pixels(shape=(4, 4))
    with open_source(write_dm(tmp_path / "a.dm4", image(plane), thumbnail_at=None)) as source:
        assert source.info.voxel_size_nm == (None, None, None)
        np.testing.assert_array_equal(source.read(0, slice(None), slice(None)), plane)


@pytest.mark.parametrize(("at", "named"), [(0, True), (0, False), (1, True)])
def test_the_thumbnail_is_where_the_file_says_or_else_first(tmp_path, at, named):
    plane = pixels(shape=(4, 4))
    images = [image(plane), thumbnail()] if at else [thumbnail(), image(plane)]
    with open_source(write_dm(tmp_path / "a.dm4", *images, thumbnail_at=at if named else None)) as source:
        np.testing.assert_array_equal(source.read(0, slice(None), slice(None)), plane)


def test_of_several_images_the_key_chooses(tmp_path):
    first, second = pixels(shape=(4, 4)), pixels(shape=(2, 5, 6))
    path = write_dm(tmp_path / "a.dm4", thumbnail(), image(first, name="survey"), image(second, name="tissue"))
    with pytest.raises(
        VolumeError, match=r"2 images; name one with `key`: 1 \(survey, 4 x 4 uint16\), 2 \(tissue, 2 x"
    ):
        open_source(path)
    for spelt in (path, f"{path}:/2"):
        with open_source(spelt, None if ":" in str(spelt) else "2") as source:
            assert source.info.key == "2"
            np.testing.assert_array_equal(source.read(1, slice(None), slice(None)), second[1])
    with pytest.raises(VolumeError, match="has no image '7'"):
        open_source(path, "7")


RGB = np.zeros((4, 4), [("b", "u1"), ("g", "u1"), ("r", "u1")])


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (image(pixels("f4", (1, 8)), form="Spectrum"), "a spectrum"),
        (image(pixels("f4", (4, 4, 8)), steps=((1, "eV"), (2, "nm"), (2, "nm"))), "a spectrum"),
        (image(pixels("f4", (4, 4, 8)), steps=((1, "keV"), (2, "nm"), (2, "nm"))), "a spectrum"),
        (image(pixels("f4", (9, 4, 8)), steps=3 * ((2, "nm"),), form="Spectrum image"), "a spectrum"),
        (image(pixels("f4", (8,))), "a spectrum"),
        (image(RGB, kind=8), "in colour"),
        (image(pixels("i4", (4, 4)), kind=23), "in colour"),
        (image(RGB, kind=15), "in colour"),
        (image(pixels("f4", (4, 8)), kind=3), "complex numbers"),
        (image(pixels("f4", (3, 10)), kind=27), "complex numbers"),
        (image(pixels("u1", (4, 8)), kind=99), "data type 99"),
        (image(pixels("u1", (2, 2, 4, 4))), "4 axes"),
        ({"ImageData": {"DataType": 6, "Dimensions": [4, 4]}, "Name": ""}, "without pixels"),
    ],
)
def test_what_is_no_grey_image_is_refused_by_name(tmp_path, entry, reason):
    path = write_dm(tmp_path / "a.dm4", thumbnail(), entry)
    with pytest.raises(VolumeError, match=f"no grey image in it, but .*{reason}"):
        open_source(path)
    with pytest.raises(VolumeError, match=f"image 1 is .*{reason}.*; name another image"):
        open_source(path, "1")


def test_what_a_file_holds_instead_of_images_is_counted(tmp_path):
    spectrum = image(pixels("f4", (8,)))
    with pytest.raises(VolumeError, match=r"in it, but a spectrum \(2 times\), one in colour \(RGB\); give another"):
        open_source(write_dm(tmp_path / "a.dm4", thumbnail(), spectrum, image(RGB, kind=8), spectrum))


def test_pixels_that_do_not_fill_the_image_are_damage(tmp_path):
    entry = image(pixels(shape=(4, 4)))
    entry["ImageData"]["Dimensions"] = [5, 4]
    with pytest.raises(VolumeError, match="an image of 4 x 5 uint16 has 32 bytes of pixels"):
        open_source(write_dm(tmp_path / "a.dm4", thumbnail(), entry))


@pytest.mark.parametrize("version", [3, 4])
def test_a_file_cut_anywhere_is_refused_in_one_line(tmp_path, version):
    whole = write_dm(tmp_path / "a.dm", thumbnail(), image(pixels()), version=version).read_bytes()
    cut = tmp_path / "cut.dm"
    for length in range(8, len(whole) - 100, 11):
        cut.write_bytes(whole[:length])
        with pytest.raises(VolumeError, match="truncated or damaged") as caught:
            open_source(cut)
        assert "\n" not in str(caught.value)


def test_a_file_that_becomes_shorter_while_it_is_read_is_named(tmp_path):
    path = write_dm(tmp_path / "a.dm4", thumbnail(), image(pixels()))
    with open_source(path) as source:
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(VolumeError, match=r"a\.dm4 became shorter while it was read"):
            source.read(0, slice(None), slice(None))


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"Microscope Info": {"Name": "FEI  Titan "}, "Acquisition": {"Device": {"Name": "OneView"}}}, "FEI Titan"),
        ({"Microscope Info": {"Name": "", "Microscope": "FEI Titan"}}, "FEI Titan"),
        ({"Microscope Info": {"Type": {"Vendor": "FEI"}}, "Session Info": {"Microscope": "Titan"}}, "FEI Titan"),
        ({"Microscope Info": {"Name": "FEI Titan", "Type": {"Vendor": "Fei"}}}, "FEI Titan"),
        ({"DataBar": {"Device Name": "DigiScan"}}, "DigiScan"),
        ({"Microscope Info": {"Other": "x"}, "Acquisition": {"Device": {"Name": "OneView"}}}, "OneView"),
        ({"Microscope Info": {"Other": "x"}}, None),
    ],
)
def test_the_instrument_is_told_or_else_the_camera(tmp_path, told, expected):
    tags = image(pixels(shape=(6, 5)))
    tags["ImageTags"] |= told
    with open_source(write_dm(tmp_path / "a.dm4", thumbnail(), tags)) as source:
        assert source.info.instrument == expected

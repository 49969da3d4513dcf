"""Grey values: one map for a volume, and its exact inverse."""

import numpy as np
import pytest
import tifffile

from emsr_fast.errors import UsageError, VolumeError
from emsr_fast.io.intensity import Normalisation, dtype_range, measure, parse_range
from emsr_fast.io.registry import open_source


def stack_file(folder, pixels):
    tifffile.imwrite(folder / "stack.tif", pixels, photometric="minisblack")
    return open_source(folder / "stack.tif")


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
def test_every_integer_comes_back_as_itself(dtype):
    limits = np.iinfo(dtype)
    values = np.arange(limits.min, int(limits.max) + 1).astype(dtype)[None]
    least, span = float(limits.min), float(limits.max) - limits.min
    # the second one reaches to the bounds: 0.9 of the range to each side
    for grey in (dtype_range(np.dtype(dtype)), Normalisation(least + span * 0.33, least + span * 0.67, "given")):
        back, clipped = grey.from_model(grey.to_model(values), np.dtype(dtype))
        assert back.dtype == dtype
        assert (back == values).all()
        assert clipped == 0


def test_out_of_range_values_are_clipped_and_counted_after_rounding():
    grey = dtype_range(np.dtype(np.uint8))
    image = np.array([[-0.01, -0.001, 1.001, 1.01]], np.float32)
    back, clipped = grey.from_model(image, np.dtype(np.uint8))
    assert back.tolist() == [[0, 0, 255, 255]]
    assert clipped == 2


def test_floats_are_not_clipped():
    back, clipped = Normalisation(10.0, 20.0, "given").from_model(np.array([[-1.0, 2.0]], np.float32), np.dtype("f4"))
    assert back.tolist() == [[0.0, 30.0]]
    assert clipped == 0


def test_a_large_offset_costs_no_digits():
    values = 1e6 + np.arange(16, dtype=np.float32)[None]
    grey = Normalisation(1e6, 1e6 + 15, "given")
    assert (grey.to_model(values) == (np.arange(16) / 15).astype(np.float32)).all()


def test_8_bits_use_their_full_range_without_being_measured(tmp_path):
    with stack_file(tmp_path, np.full((2, 5, 5), 9, np.uint8)) as source:
        assert (measure(source).low, measure(source).high) == (0, 255)


def test_percentiles_are_of_the_whole_volume(tmp_path):
    pixels = np.random.default_rng(0).integers(1000, 3000, (40, 30, 30)).astype(np.uint16)
    pixels[20:] += 5000
    with stack_file(tmp_path, pixels) as source:
        whole = measure(source)
    sampled = pixels[np.linspace(0, 39, 16).round().astype(int)]
    assert (whole.low, whole.high) == tuple(np.percentile(sampled.astype(float), (0.1, 99.9)))
    assert whole.high > 7000


def test_a_mostly_empty_volume_falls_back_to_minimum_and_maximum(tmp_path):
    pixels = np.zeros((1, 200, 200), np.uint16)
    pixels[0, 7, 9] = 500
    with stack_file(tmp_path, pixels) as source:
        assert (measure(source).low, measure(source).high) == (0, 500)


def test_a_constant_volume_asks_for_a_range(tmp_path):
    pixels = np.full((2, 9, 9), 7, np.uint16)
    message = r"all sampled pixels are 7, .* `intensity_range=LO:HI`"
    with stack_file(tmp_path, pixels) as source, pytest.raises(VolumeError, match=message):
        measure(source)


def test_nan_pixels_and_unreadable_slices_are_left_out(tmp_path):
    pixels = np.random.default_rng(0).random((3, 9, 9), dtype=np.float32)
    pixels[1, 2, 3] = np.nan
    with stack_file(tmp_path, pixels) as source:
        found = measure(source)
        assert (found.low, found.high) == tuple(np.nanpercentile(pixels.astype(float), (0.1, 99.9)))
        read = source.read

        def fail(z, rows, cols):
            if z == 1:
                raise VolumeError("slice 1 cannot be decoded")
            return read(z, rows, cols)

        source.read = fail
        found = measure(source)
        assert (found.low, found.high) == tuple(np.percentile(pixels[[0, 2]].astype(float), (0.1, 99.9)))
        source.read = lambda z, rows, cols: fail(1, rows, cols)
        with pytest.raises(VolumeError, match="slice 1 cannot be decoded"):
            measure(source)


def test_ranges_are_given_in_grey_values():
    assert parse_range("-100:4095.5", np.dtype(np.int16)) == Normalisation(-100.0, 4095.5, "given")
    assert (parse_range("dtype", np.dtype(np.uint16)).high, parse_range("dtype", np.dtype(np.float32)).high) == (
        65535,
        1,
    )


@pytest.mark.parametrize("text", ["", "5", "5:", ":5", "5:5", "9:5", "a:b", "0:inf", "nan:1", "1:2:3"])
def test_a_range_that_is_none_is_refused(text):
    with pytest.raises(UsageError, match="LO:HI"):
        parse_range(text, np.dtype(np.uint16))


def test_float16_is_measured_without_a_warning(tmp_path, recwarn):
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = np.random.default_rng(0).normal(100, 20, (2, 30, 30)).astype(np.float16)
    with open_source(tmp_path / "a.h5") as source:
        assert measure(source).low > 0
    assert not recwarn.list


def test_what_was_bounded_is_of_the_resampled_image_where_there_is_one():
    grey = Normalisation(0.0, 1.0, "given")
    assert grey.told_bounded(3).startswith("3 input pixels below -1 or above 2, ")
    assert grey.told_bounded(3, resampled=True).startswith("3 resampled pixels below -1 or above 2, ")

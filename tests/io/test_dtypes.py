"""Pixels of types that are not kept: read as one that is, with a note, the same from every format."""

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

import emsr_fast
from dm_files import image, write_dm
from emsr_fast.errors import VolumeError
from emsr_fast.io.registry import open_source
from emsr_fast.io.volume import output_dtype
from ser_files import write_ser

SHAPE = (2, 6, 8)


def stack(dtype):
    if dtype == "?":
        return np.arange(96).reshape(SHAPE) % 3 == 0
    lowest = -(2**24) if np.dtype(dtype).kind == "i" else 0
    return np.linspace(lowest, 2**24, 96).reshape(SHAPE).astype(dtype)


def hdf5(path, pixels):
    with h5py.File(path, "w") as file:
        file["data"] = pixels


WRITERS = {
    "a.tif": lambda path, pixels: tifffile.imwrite(path, pixels, photometric="minisblack"),
    "a.h5": hdf5,
    "a.zarr": zarr.save_array,
    "a.dm4": lambda path, pixels: write_dm(path, image(pixels), thumbnail_at=None),
    "a.ser": write_ser,
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("dtype", ["i4", "u4", "f8"])
def test_wide_numbers_are_processed_as_float32_and_it_is_said(tmp_path, name, dtype):
    pixels = stack(dtype)
    WRITERS[name](tmp_path / name, pixels)
    with open_source(tmp_path / name) as source:
        assert output_dtype(source.dtype) == np.float32
        assert any(np.dtype(dtype).name in note and "float32" in note for note in source.info.notes)
        for z, plane in enumerate(pixels):
            # the largest number is the last that float32 holds exactly
            np.testing.assert_array_equal(source.read(z, slice(1, 6), slice(2, 8)), plane[1:6, 2:8])


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "a.ser"])
def test_truth_values_are_black_and_white(tmp_path, name):
    pixels = stack("?")
    WRITERS[name](tmp_path / name, pixels)
    with open_source(tmp_path / name) as source:
        assert source.dtype == np.uint8
        assert any(note.startswith("bool is read as uint8") for note in source.info.notes)
        for z, plane in enumerate(pixels):
            np.testing.assert_array_equal(source.read(z, slice(None), slice(None)), plane * np.uint8(255))


@pytest.mark.parametrize(("photometric", "black"), [("minisblack", 0), ("miniswhite", 255)])
def test_a_tiff_of_one_bit_is_read_with_its_own_black(tmp_path, photometric, black):
    pixels = stack("?")[0]
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric=photometric)
    with open_source(tmp_path / "a.tif") as source:
        np.testing.assert_array_equal(
            source.read(0, slice(None), slice(None)), np.where(pixels, 255 - black, black).astype(np.uint8)
        )


def test_a_png_of_one_bit_is_black_and_white(tmp_path):
    pixels = stack("?")[0]
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with open_source(tmp_path / "a.png") as source:
        np.testing.assert_array_equal(source.read(0, slice(None), slice(None)), pixels * np.uint8(255))


@pytest.mark.parametrize(("dtype", "expected"), [("i4", np.float32), ("u4", np.float32), ("?", np.uint8)])
def test_arrays_too(dtype, expected):
    assert emsr_fast.super_resolve(stack(dtype)[0]).dtype == expected


@pytest.mark.parametrize("dtype", ["i8", "u8"])
def test_numbers_of_64_bits_are_labels_and_refused(tmp_path, dtype):
    hdf5(tmp_path / "a.h5", stack(dtype))
    with pytest.raises(VolumeError, match=f"dtype {np.dtype(dtype).name}, which is not among"):
        open_source(tmp_path / "a.h5")

"""Voxel sizes as numbers: whatever they are computed from, they read as what was meant."""

import json

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile

from emsr_fast.cli import main
from emsr_fast.io.registry import open_source
from emsr_fast.io.voxels import FLOAT32, RATIO, divided, meant, multiplied, nanometres


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (13.8 / 3, "4.6"),
        (0.0046 * 1e3, "4.6"),
        (10 / 3, "3.3333333333333335"),
        (4.5999999999, "4.5999999999"),  # a size that somebody wrote so
        (1e-7, "1e-07"),
        (30.0, "30.0"),
        (123456789.0, "123456789.0"),
        (-13.8 / 3, "-4.6"),
        (0.0, "0.0"),
        (float("inf"), "inf"),
    ],
)
def test_digits_that_only_arithmetic_made_are_taken_away(value, expected):
    assert str(meant(value)) == expected


@pytest.mark.parametrize("precision", [RATIO, FLOAT32])
@pytest.mark.parametrize("size", [4.6, 13.8, 0.3, 15.234])
def test_what_a_file_keeps_less_exactly_is_found_again(size, precision):
    assert meant(size * (1 + 0.4 * precision), precision) == size
    assert meant(size, precision) == size


@pytest.mark.parametrize("precision", [RATIO, FLOAT32])
def test_a_size_read_again_and_again_does_not_wander(precision):
    for size in np.random.default_rng(0).uniform(1, 100, 1000):
        once = meant(float(size), precision)
        assert abs(once - size) <= precision * size
        assert meant(once, precision) == once


@pytest.mark.parametrize("size", [10.0, 13.8, 4.0, 7.3, 0.1, 1 / 3])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_size_divided_and_multiplied_is_itself_again(size, scale):
    small = divided((None, size, size), scale)
    assert small[0] is None
    assert small[1] == pytest.approx(size / scale, rel=1e-9)
    assert multiplied(small, scale) == (None, size, size)
    assert divided(multiplied(small, scale), scale) == small


def test_units_leave_no_digits_behind():
    assert [nanometres(0.0046, unit) for unit in ("um", "mm", "cm")] == [4.6, 4600, 46000]
    assert nanometres(46, "angstrom") == 4.6


@pytest.mark.parametrize("name", ["a.ome.tif", "a.tif", "a.mrc", "a.h5", "b.h5"])
def test_sizes_read_from_a_file_are_what_was_meant(tmp_path, name):
    pixels, path = np.zeros((2, 8, 9), np.uint16), tmp_path / name
    if name == "a.ome.tif":
        tifffile.imwrite(path, pixels, metadata={"axes": "ZYX", "PhysicalSizeX": 0.0046, "PhysicalSizeY": 0.0046})
    elif name == "a.tif":
        tifffile.imwrite(path, pixels, resolution=(1e7 / 4.6, 1e7 / 4.6), resolutionunit="CENTIMETER")
    elif name == "a.mrc":
        with mrcfile.new(path) as file:
            file.set_data(pixels)
            file.voxel_size = (46, 46, 500)
    else:
        with h5py.File(path, "w") as file:
            file["raw"] = pixels
            # Fiji writes 32 bits
            file["raw"].attrs["element_size_um"] = np.array([0.05, 0.0046, 0.0046], "f8" if name == "a.h5" else "f4")
    with open_source(path) as source:
        assert source.info.voxel_size_nm[1:] == (4.6, 4.6)


@pytest.mark.parametrize("suffix", [".ome.zarr", ".ome.tif", ".h5", ".mrc"])
def test_the_size_of_an_output_is_short_in_json_and_in_the_file(tmp_path, capsys, suffix):
    path, output = tmp_path / "in.tif", tmp_path / f"out{suffix}"
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32)).astype(np.uint8)
    tifffile.imwrite(path, pixels, resolution=(1e7 / 13.8, 1e7 / 13.8), resolutionunit="CENTIMETER")
    arguments = ["infer", str(path), "-o", str(output), "--device", "cpu", "--input-voxel", "ignore", "--json"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["voxel_size_nm"] == [None, 4.6, 4.6]
    assert main(["inspect", str(output), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["voxel_size_nm"] == [None, 4.6, 4.6]

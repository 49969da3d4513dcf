"""What infer says of its output before it writes: the dtype that the format really gets, the place of a region."""

import json

import mrcfile
import numpy as np
import pytest
import tifffile

from emsr_fast.cli import main
from emsr_fast.errors import VolumeError
from emsr_fast.volume import job


@pytest.fixture
def stack(tmp_path):
    """Four slices, 24 x 32 px of 30 nm, 50 nm apart."""
    pixels = np.random.default_rng(0).integers(0, 255, (4, 24, 32)).astype(np.uint8)
    sizes = {"PhysicalSizeX": 0.03, "PhysicalSizeY": 0.03, "PhysicalSizeZ": 0.05}
    path = tmp_path / "in.ome.tif"
    tifffile.imwrite(path, pixels, photometric="minisblack", metadata={"axes": "ZYX", **sizes})
    return path


def infer(stack, output, *options):
    return main(["infer", str(stack), "-o", str(output), "--device", "cpu", *options])


def test_an_mrc_output_says_the_dtype_it_gets(stack, tmp_path, capsys):
    output = tmp_path / "out.mrc"
    assert infer(stack, output, "--slices", "0:1", "--json") == 0
    told = capsys.readouterr()
    assert "1 x 72 x 96 (Z, Y, X), uint16, voxel size" in told.err
    assert "note    MRC has no uint8: the same values are written as uint16" in told.err
    assert json.loads(told.out)["dtype"] == "uint16"
    with mrcfile.open(output) as file:
        assert file.data.dtype == np.uint16
        assert file.data.max() <= 255


def test_the_space_that_an_mrc_needs_is_that_of_its_own_dtype(stack, tmp_path, monkeypatch):
    asked = []

    def check_space(path, needed):
        asked.append(needed)
        raise VolumeError("stop here")

    monkeypatch.setattr(job, "check_space", check_space)
    assert infer(stack, tmp_path / "out.mrc", "--slices", "0:1") == 3
    assert asked == [72 * 96 * 2]

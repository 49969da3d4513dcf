"""What several tests of runs share."""

import shutil

import numpy as np
import pytest
import tifffile

from emsr_fast.cli import main
from half_done import MODES, OPTIONS, words_of
from sweeps import quick_of


@pytest.fixture(scope="module", params=quick_of(list(MODES), quick=["0.5"]))
def begun(request, tmp_path_factory):
    """A folder with an input of four blocks, all of its output in whole/, and a run with the first half done."""
    folder = tmp_path_factory.mktemp("begun")
    rows, cols = np.mgrid[:64, :400]
    noise = np.random.default_rng(0).normal(0, 40, (4, 64, 400))
    pixels = (2000 + 1000 * np.sin(rows / 7) * np.cos(cols / 9) + noise).astype(np.uint16)
    tifffile.imwrite(folder / "in.tif", pixels, photometric="minisblack")
    (folder / "whole").mkdir()
    words = words_of(folder, *MODES[request.param])
    assert main(words) == 0
    (folder / "out.zarr").rename(folder / "whole" / "out.zarr")
    assert main([*words, "--shard=1/2"]) == 0
    return folder, MODES[request.param]


@pytest.fixture
def half(begun, tmp_path):
    """A copy of that folder, and the words of its command."""
    folder, mode = begun
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    return tmp_path, words_of(tmp_path, *mode)


@pytest.fixture
def slices(tmp_path):
    """An input of three small blocks, and the words of its command."""
    tifffile.imwrite(tmp_path / "in.tif", np.random.default_rng(0).integers(0, 255, (12, 64, 64), np.uint8))
    (tmp_path / "out").mkdir()
    words = ["infer", str(tmp_path / "in.tif"), "-o", str(tmp_path / "out" / "a.ome.zarr"), *OPTIONS]
    return tmp_path / "out" / "a.ome.zarr", words

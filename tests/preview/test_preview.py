"""emsr-fast preview: LR, bicubic, SR and trust of one place in one picture."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image

from emsr_fast.cli import main
from emsr_fast.infer.job import infer
from emsr_fast.io.resize import bicubic
from emsr_fast.preview.job import make_preview
from emsr_fast.preview.sheet import bar_length, draw_preview


@pytest.fixture
def small(stack, tmp_path):
    """Part of a real stack with pixels of 24 nm: 5 slices of 72 x 90 px."""
    path = tmp_path / "small.stack.tif"
    tags = {"resolution": (1e7 / 24, 1e7 / 24), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, tifffile.imread(stack)[:5, :72, :90], photometric="minisblack", **tags)
    return path


def preview(*arguments):
    return main(["preview", *map(str, arguments)])


def test_the_middle_slice_is_shown_and_its_path_printed(small, tmp_path):
    command = [sys.executable, "-m", "emsr_fast", "preview", small]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    path = tmp_path / "small_slice2.png"
    assert done.stdout == f"{path}\n"
    assert "trust   the input's noise is" in done.stderr
    picture = np.asarray(Image.open(path))
    # four panels of 2 x 270 px a row, three of them grey
    assert picture.shape[2] == 3
    assert picture.shape[1] > 4 * 2 * 270
    coloured = (picture.max(axis=2) != picture.min(axis=2)).mean(axis=0) > 0.5
    assert 500 < coloured.sum() < 580
    assert coloured.argmax() > 3 * 2 * 270
    # a second one has a name of its own
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert again.stdout == f"{tmp_path / 'small_slice2-2.png'}\n"


def test_the_region_has_the_pixels_that_infer_writes_there(small, tmp_path):
    roi = "3,8,4:4,70,81"
    infer(small, tmp_path / "out.zarr", roi=roi, trust=True)
    infer(small, tmp_path / "out.tif", roi=roi, trust=True)
    found = make_preview(small, roi=roi)
    stack = tifffile.imread(small)
    np.testing.assert_array_equal(found.low, stack[3, 8:70, 4:81])
    np.testing.assert_array_equal(found.high, tifffile.imread(tmp_path / "out.tif"))
    assert found.trust_name == "error"
    np.testing.assert_array_equal(found.trust, tifffile.imread(tmp_path / "out.trust-error.tif"))
    # interpolated as part of its slice
    np.testing.assert_allclose(found.bicubic, bicubic(stack[3], 3)[24:210, 12:243], atol=1e-3)


def test_of_a_large_slice_the_middle_is_shown(stack, tmp_path):
    image = np.tile(tifffile.imread(stack)[0], (2, 3))
    tifffile.imwrite(tmp_path / "large.tif", image)
    found = make_preview(tmp_path / "large.tif", with_trust=False)
    assert (found.z, found.rows, found.cols) == (0, (64, 320), (160, 416))
    np.testing.assert_array_equal(found.low, image[64:320, 160:416])


def test_options_are_those_of_infer(small, tmp_path, capsys):
    output = tmp_path / "a.png"
    arguments = ["-o", output, "--slice", 4, "--range", "20:200", "--input-voxel", "12.42", "--no-trust", "--json"]
    assert preview(small, *arguments, "--axes", "ZYX", "--model", "emsr-x3-small") == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    # 12.42 nm resampled to 13.8: fewer pixels
    assert told == {
        "output": str(output), "slice": 4, "rows": [0, 65], "columns": [0, 81], "model": "emsr-x3-small", "trust": None,
    }  # fmt: skip
    assert "20 .. 200 to 0 .. 1 (given)" in err
    assert "resampled from 12.42 x 12.42 to 13.8 x 13.8 nm" in err
    assert Image.open(output).width > 3 * 81 * 3


def test_a_scale_bar_is_drawn_where_the_pixel_size_is_known(small):
    found = make_preview(small, with_trust=False)
    with_bar = np.asarray(draw_preview(found))
    # 90 px of 24 nm: 500 nm are less than a third; 8 nm to a pixel, doubled
    white = (with_bar == 255).all(axis=2)
    bar = 500 / 4
    assert any(_longest_run(row[: 2 * 270]) == bar for row in white[100:])
    object.__setattr__(found, "voxel_size_nm", (None, None, None))
    without = (np.asarray(draw_preview(found)) == 255).all(axis=2)
    assert not any(_longest_run(row[24 : 24 + 540]) == bar for row in without[100:-60])


def _longest_run(row):
    ends = np.flatnonzero(np.diff(np.concatenate([[0], row[24:], [0]])))
    return max(ends[1::2] - ends[::2], default=0)


@pytest.mark.parametrize(("width_nm", "bar_nm"), [(2160, 500), (700, 200), (334, 100), (0.9, 0.2), (10_000, 2000)])
def test_scale_bars_have_round_lengths(width_nm, bar_nm):
    assert bar_length(width_nm) == pytest.approx(bar_nm)


def test_trust_that_cannot_be_measured_is_left_out_and_said(tmp_path, capsys):
    # nothing that is not clipped: no noise to measure
    image = np.zeros((40, 40), np.uint8)
    image[:, 20:] = 255
    tifffile.imwrite(tmp_path / "clipped.tif", image)
    assert preview(tmp_path / "clipped.tif", "-o", tmp_path / "a.png") == 0
    assert "trust   left out: " in capsys.readouterr().err


def test_nothing_is_overwritten_unasked(small, tmp_path, capsys):
    output = tmp_path / "a.png"
    output.write_bytes(b"precious")
    for options in ([], ["--overwrite"]):
        assert preview(small, "-o", output, "--no-trust", *options) == 3
        assert "is not a PNG: not overwritten" in capsys.readouterr().err
        assert output.read_bytes() == b"precious"
    Image.new("L", (3, 3)).save(output)
    assert preview(small, "-o", output, "--no-trust") == 3
    assert "exists; choose another name or give --overwrite" in capsys.readouterr().err
    assert preview(small, "-o", output, "--no-trust", "--overwrite") == 0
    assert Image.open(output).width > 500
    (tmp_path / "in.png").write_bytes(output.read_bytes())
    assert preview(tmp_path / "in.png", "-o", tmp_path / "in.png", "--overwrite") == 2
    assert "is the input itself" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--slice", "5"], 2, "--slice is 5, and the volume has slices 0 to 4"),
        (["--slice", "-1"], 2, "slice is -1"),
        (["--slice", "1", "--roi", "0,0,0:1,9,9"], 2, "--slice and --roi are both given"),
        (["--roi", "0,0,0:2,9,9"], 2, "has 2 slices, and a preview shows one"),
        (["--roi", "0,0,0:1,99,9"], 2, "reaches beyond the volume"),
        (["--input-voxel", "wide"], 2, "input-voxel is 'wide'"),
        (["--range", "9:5"], 2, "--range is '9:5'"),
        (["--model", "emsr-x9"], 3, "emsr-x9"),
        (["-o", "a.tif"], 2, "ends in .png"),
        (["-o", "none/a.png"], 3, "does not exist"),
    ],
)
def test_what_cannot_be_shown_is_refused(small, capsys, arguments, code, words):
    assert preview(small, *arguments) == code
    assert words in capsys.readouterr().err


def test_another_pixel_size_is_refused_as_by_infer(stack, capsys):
    assert preview(stack) == 2
    assert "a mismatch of 38 %" in capsys.readouterr().err

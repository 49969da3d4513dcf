"""Side-by-side sheets and the figures under them."""

import math

import numpy as np
import pytest
from PIL import Image

from emsr_fast.io.resize import bicubic
from emsr_fast.metrics import affine_fit, psnr_after_affine_fit
from emsr_fast.pictures import degrade, demo_sheet, side_by_side


def test_panels_stand_side_by_side_in_one_grey_scale(tmp_path):
    low = np.array([[0, 100], [100, 0]])
    side_by_side([("low", low), ("high", low.repeat(200, axis=0).repeat(200, axis=1))], tmp_path / "a.png")
    sheet = np.asarray(Image.open(tmp_path / "a.png"))
    assert sheet.ndim == 2
    assert sheet.dtype == np.uint8
    left, right = sheet[34:434, 12:412], sheet[34:434, 424:824]
    assert (left == right).all()
    assert (left[0, 0], left[0, -1]) == (0, 255)
    # the titles are drawn
    assert (sheet[:34] < 128).any()


def test_panels_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'b' is \(3, 3\), which does not divide"):
        side_by_side([("a", np.zeros((400, 400))), ("b", np.zeros((3, 3)))], tmp_path / "a.png")
    with pytest.raises(ValueError, match="no panels"):
        side_by_side([], tmp_path / "a.png")


def test_degrading_takes_the_mean_of_squares():
    volume = np.arange(2 * 6 * 9, dtype=np.uint8).reshape(2, 6, 9)
    low = degrade(volume, 3)
    assert low.shape == (2, 2, 3)
    assert low[1, 0, 2] == volume[1, 0:3, 6:9].mean()
    with pytest.raises(ValueError, match="3 does not divide"):
        degrade(volume[:, :5], 3)


def test_bicubic_keeps_a_ramp_in_place():
    ramp = np.arange(30, dtype=np.float32)[None].repeat(30, axis=0)
    centres = (np.arange(90) + 0.5) / 3 - 0.5
    assert np.abs(bicubic(ramp, 3)[45, 9:-9] - centres[9:-9]).max() < 1e-4


def test_gain_and_offset_do_not_count():
    reference = np.random.default_rng(0).integers(0, 255, (9, 9)).astype(np.uint8)
    assert np.allclose(affine_fit(reference * -0.3 + 7, reference), reference)
    noisy = reference + np.where(np.indices((9, 9)).sum(0) % 2, 1.0, -1.0)
    assert psnr_after_affine_fit(noisy * 3 - 50, reference, 255) == pytest.approx(20 * math.log10(255), abs=0.1)
    assert psnr_after_affine_fit(reference, reference, 255) > 200
    assert affine_fit(np.zeros((9, 9)), reference).std() == 0


def test_the_demo_sheet_shows_four_panels_and_returns_its_figures(tmp_path):
    original = np.random.default_rng(0).integers(0, 255, (2, 30, 30)).astype(np.uint8)
    decibels = demo_sheet(degrade(original, 3), original, original, tmp_path / "a.png")
    assert decibels["EMSR"] > 100 > decibels["bicubic"]
    zoom = 13  # 30 px are small
    assert Image.open(tmp_path / "a.png").size == (12 + 4 * (30 * zoom + 12), 34 + 30 * zoom + 12)

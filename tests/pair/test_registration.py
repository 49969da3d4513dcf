"""Registration: known shifts, turns, magnifications and noise on real images are found again; wrong pairs are not."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

import fields
from emsr_fast import VolumeError
from emsr_fast.metrics.correlation import band, independent_samples, ncc
from emsr_fast.pair.coarse_search import coarse_search
from emsr_fast.pair.find_field import Bounds, find_field
from emsr_fast.pair.fit_quality import best_rectangle, grey_line, measure_fit
from emsr_fast.pair.pose import Pose
from emsr_fast.pair.read_slices import read_reduced
from emsr_fast.pair.refine import Aligned, Field, Slice, refine
from emsr_fast.pair.resample_pair import PairedPart, resample_pair

SEM = Path(__file__).parents[2] / "examples" / "data" / "rat_spinal_whitematter_sem_70nm_512.png"
IMAGE = np.asarray(Image.open(SEM)).astype(np.float64)
RATIO, HR_SHAPE, LR_SHAPE = 3.33, (300, 306), (150, 149)


class Memory:
    """A volume in memory."""

    def __init__(self, pixels):
        self.pixels = np.asarray(pixels, dtype=np.float32)
        self.shape, self.dtype = self.pixels.shape, self.pixels.dtype
        self.info = SimpleNamespace(path="memory", voxel_size_nm=(None, None, None), shape=self.shape)

    def read(self, z, rows, cols):
        return self.pixels[z, rows, cols]


def acquire(share, ratio, degrees, noise, seed=0, image=IMAGE):
    """Return LR, HR and the true pose."""
    rng = np.random.default_rng(seed)
    corner = [int(s * (512 - side)) for s, side in zip(share, HR_SHAPE, strict=True)]
    to_lr = fields.matrix(ratio, degrees)
    centre = fields.centre_at(share, HR_SHAPE, to_lr, LR_SHAPE)
    lr = 0.8 * fields.acquired_lr(image, corner, HR_SHAPE, centre, to_lr, LR_SHAPE) + 20
    hr = image[corner[0] : corner[0] + HR_SHAPE[0], corner[1] : corner[1] + HR_SHAPE[1]]
    noisy = (a + noise * rng.standard_normal(a.shape) for a in (lr, hr))
    return *(Memory(a[None]) for a in noisy), Pose(centre, to_lr)


def found(lr, hr, **options):
    options = {"offset": None, "min_ncc": 0.6, "say": lambda line: None, **options}
    return find_field(lr, hr, range(hr.shape[0]), 3, Bounds(RATIO, 5.0, 0.05), **options)


share = st.sampled_from([0.0, 1.0]) | st.floats(0, 1)


# 0.05 px, 0.05 degrees and 0.2 % are what is promised
@settings(max_examples=12, deadline=None, derandomize=True, database=None)
@given(share, share, st.floats(-4.5, 4.5), st.floats(0.955, 1.045), st.floats(0, 10), st.integers(0, 99))
def test_shift_turn_and_magnification_are_found_anywhere(y, x, degrees, magnification, noise, seed):
    lr, hr, true = acquire((y, x), RATIO * magnification, degrees, noise, seed)
    pose = found(lr, hr).pose
    assert np.abs(pose.centre - true.centre).max() < 0.05
    assert abs(pose.rotation_deg - degrees) < 0.05
    assert abs(pose.ratio / true.ratio - 1) < 0.002


def test_without_noise_hardly_anything_is_left():
    lr, hr, true = acquire((0.3, 0.6), 3.4, -2.2, 0)
    pose = found(lr, hr).pose
    assert np.abs(pose.centre - true.centre).max() < 0.005
    assert abs(pose.rotation_deg + 2.2) < 0.005
    assert abs(pose.ratio / 3.4 - 1) < 1e-4


def test_shear_and_unequal_magnification_are_found():
    to_lr = fields.matrix(RATIO, 1.0) @ np.array([[1.01, 0.006], [0.0, 0.995]])
    centre = fields.centre_at((0.4, 0.5), HR_SHAPE, to_lr, LR_SHAPE)
    lr = fields.acquired_lr(IMAGE, (80, 100), HR_SHAPE, centre, to_lr, LR_SHAPE)
    hr = IMAGE[80 : 80 + HR_SHAPE[0], 100 : 100 + HR_SHAPE[1]]
    pose = found(Memory(lr[None]), Memory(hr[None])).pose
    np.testing.assert_allclose(pose.matrix * RATIO, to_lr * RATIO, atol=2e-4)


def wrong_fields():
    corner = IMAGE[100:400, 100:406]
    yield "turned", np.rot90(IMAGE)[: HR_SHAPE[0], : HR_SHAPE[1]]
    yield "mirrored", corner[:, ::-1]
    yield "negative of a turned one", 255 - np.rot90(corner, 2)
    yield "noise", np.random.default_rng(0).normal(100, 30, HR_SHAPE)
    yield "smooth noise", ndimage.gaussian_filter(np.random.default_rng(1).normal(100, 30, HR_SHAPE), 9)
    yield "small", np.rot90(IMAGE)[:84, :84]


@pytest.mark.parametrize(
    ("name", "wrong"), list(wrong_fields()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_wrong_pairs_are_rejected(name, wrong):
    lr, _, _ = acquire((0.5, 0.5), RATIO, 0, 3)
    with pytest.raises(VolumeError, match="was not found in"):
        found(lr, Memory(wrong[None]))


def test_the_search_agrees_with_the_definition_across_its_blocks(monkeypatch):
    monkeypatch.setattr("emsr_fast.pair.coarse_search._BLOCK", 64)
    field = np.random.default_rng(0).normal(7, 2, (150, 171)).astype(np.float32)
    field[60:90] = 5  # nothing to be found there
    templates = [field[101:133, 117:150] + 3, -field[5:37, 40:73]]
    best = coarse_search(field, templates, 3)
    assert [(hit.row, hit.col, hit.template) for hit in best[:1]] == [(101, 117, 0)]
    assert best[0].ncc == pytest.approx(1, abs=1e-4)
    for hit in best:
        seen = field[hit.row : hit.row + 32, hit.col : hit.col + 33]
        assert hit.ncc == pytest.approx(ncc(seen, templates[hit.template]), abs=1e-4)
    everywhere = [
        ncc(field[row : row + 32, col : col + 33], template)
        for template in templates
        for row in range(0, 119, 7)
        for col in range(0, 139, 7)
    ]
    assert best[1].ncc >= max(value for value in everywhere if value < 0.9) - 1e-4


def test_of_unrelated_images_the_correlation_is_as_stated():
    rng = np.random.default_rng(0)
    images = [band(ndimage.gaussian_filter(rng.normal(size=(96, 96)), s)) for s in (1, 2) for _ in range(60)]
    seen = np.array([ncc(a, b) for a, b in zip(images[:60], images[60:], strict=True)])
    stated = np.mean([independent_samples(a, b) ** -0.5 for a, b in zip(images[:60], images[60:], strict=True)])
    assert seen.std() == pytest.approx(stated, rel=0.25)


def test_lr_is_resampled_where_the_squares_of_hr_lie():
    y, x = np.mgrid[: LR_SHAPE[0], : LR_SHAPE[1]].astype(np.float64)
    true = Pose(np.array([70.3, 80.6]), fields.matrix(3.4, 1.7))
    shapes = SimpleNamespace(scale=3)
    kept = PairedPart(0, 0, true, None, slice(4, 84), slice(8, 98))
    centres = np.moveaxis(np.mgrid[4:84, 8:98], 0, -1).reshape(-1, 2) * 3.0 + 1
    expected = true.in_lr(centres, HR_SHAPE)
    hr = Memory(IMAGE[None, : HR_SHAPE[0], : HR_SHAPE[1]])
    for axis, ramp in enumerate((y, x)):
        made = resample_pair(Memory(ramp[None]), hr, kept, shapes)
        assert made.lr.shape == (80, 90)
        np.testing.assert_allclose(made.lr.ravel(), expected[:, axis], atol=2e-4)
    # HR keeps its pixels: gain and offset only
    assert made.hr.shape == (240, 270)
    np.testing.assert_allclose(made.hr, made.gain * hr.pixels[0, 12:252, 24:294] + made.offset, rtol=1e-5)


def test_grey_values_are_matched_whatever_noise_and_outliers():
    rng = np.random.default_rng(0)
    hr = ndimage.zoom(IMAGE, 0.3)
    lr = 0.7 * hr + 31 + rng.normal(0, 10, hr.shape)
    lr[10:20, 10:30] = 4000  # charging
    gain, offset = grey_line(hr + rng.normal(0, 10, hr.shape), lr)
    assert gain == pytest.approx(0.7, rel=0.03)
    assert offset + gain * hr.mean() == pytest.approx(31 + 0.7 * hr.mean(), abs=1)


def test_regions_that_differ_are_left_out_and_noise_is_not():
    rng = np.random.default_rng(0)
    hr = band(ndimage.zoom(IMAGE, 0.25))
    hr[64:96, 32:64] = 0  # empty resin: noise in both
    lr = 0.8 * hr + rng.normal(0, 5, hr.shape)
    lr[0:40, 98:128] = 3 * band(rng.normal(0, 60, (40, 30)))
    judged = measure_fit(Aligned(None, hr, lr, np.ones(hr.shape, bool), ncc(hr, lr)), 0.6)
    rows, cols, members = best_rectangle(judged.good[None], judged.rows, judged.cols)
    assert members.all()
    assert (rows, cols) == (slice(0, 128), slice(0, 96))
    assert judged.residual_px < 0.3


def test_the_rectangle_keeps_most_pixels():
    rng = np.random.default_rng(0)
    good, edges = rng.random((3, 4, 5)) > 0.15, np.arange(6) * 10
    rows, cols, members = best_rectangle(good, edges[:5], edges)
    kept = members.sum() * (rows.stop - rows.start) * (cols.stop - cols.start)
    brute = max(
        good[:, a:b, c:d].all(axis=(1, 2)).sum() * (b - a) * (d - c) * 100
        for a in range(4) for b in range(a + 1, 5) for c in range(5) for d in range(c + 1, 6)
    )  # fmt: skip
    assert kept == brute


def test_means_are_taken_in_strips_exactly(monkeypatch):
    monkeypatch.setattr("emsr_fast.pair.read_slices._STRIP_PIXELS", 1000)
    seen = read_reduced(Memory(IMAGE[None]), 0, range(3, 200), range(5, 300), 4)
    assert seen.shape == (49, 73)
    np.testing.assert_allclose(seen, IMAGE[3:199, 5:297].reshape(49, 4, 73, 4).mean(axis=(1, 3)), rtol=1e-6)


def test_a_field_partly_outside_is_aligned_by_what_is_inside():
    to_lr = fields.matrix(RATIO, 0.5)
    centre = np.array([38.0, 80.0])  # a tenth of it is above the first row
    lr = Memory(fields.acquired_lr(IMAGE, (60, 100), HR_SHAPE, centre, to_lr, LR_SHAPE)[None])
    hr = Memory(IMAGE[None, 60 : 60 + HR_SHAPE[0], 100 : 100 + HR_SHAPE[1]])
    aligned = refine(Slice(hr, 0, 3), Field(lr, 0), Pose.of((39.0, 79.5), RATIO), [2, 1])
    np.testing.assert_allclose(aligned.pose.centre, centre, atol=0.02)
    judged = measure_fit(aligned, 0.6)
    assert not judged.good[0].any()
    assert judged.good[2:].all()

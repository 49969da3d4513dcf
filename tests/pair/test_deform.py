"""pair --bspline: a known smooth deformation of a real image is undone; an affine pair is left as it is."""

import csv
import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from PIL import Image

import fields
from emsr_fast import UsageError
from emsr_fast.cli import main
from emsr_fast.pair import Pose, pair
from emsr_fast.pair.deform import deform, least_jacobian
from emsr_fast.pair.refine import Field, Slice, refine

SEM = Path(__file__).parents[2] / "examples" / "data" / "rat_spinal_whitematter_sem_70nm_512.png"
IMAGE = np.asarray(Image.open(SEM)).astype(np.float64)
CORNER, HR_SHAPE, LR_SHAPE, RATIO = (80, 100), (300, 306), (150, 149), 3.4
TO_LR = fields.matrix(RATIO, 1.3)
CENTRE = fields.centre_at((0.4, 0.55), HR_SHAPE, TO_LR, LR_SHAPE)
AMPLITUDE, PERIOD, SPACING = 4.5, 240.0, 24  # HR px, HR px, LR px: a bend of 1.3 LR px, waves of 71 LR px

needs_simpleitk = pytest.mark.skipif(importlib.util.find_spec("SimpleITK") is None, reason="needs the extra bspline")


class Memory:
    """A slice in memory."""

    def __init__(self, image):
        self.pixels = image.astype(np.float32)[None]
        self.shape, self.dtype = self.pixels.shape, self.pixels.dtype
        self.info = SimpleNamespace(path="memory", voxel_size_nm=(None, None, None))

    def read(self, z, rows, cols):
        return self.pixels[z, rows, cols]


def bend(places):
    return fields.waves(places, AMPLITUDE, PERIOD)


def acquire(noise, bend, seed=0):
    """Return LR and HR of one field."""
    rng = np.random.default_rng(seed)
    lr = 20 + 0.8 * fields.acquired_lr(IMAGE, CORNER, HR_SHAPE, CENTRE, TO_LR, LR_SHAPE, bend)
    hr = IMAGE[CORNER[0] : CORNER[0] + HR_SHAPE[0], CORNER[1] : CORNER[1] + HR_SHAPE[1]]
    return tuple(image + noise * rng.standard_normal(image.shape) for image in (lr, hr))


def register(noise, bend, seed=0):
    lr, hr = (Memory(image) for image in acquire(noise, bend, seed))
    moving, field = Slice(hr, 0, 3), Field(lr, 0)
    aligned = refine(moving, field, Pose.of(tuple(CENTRE + 0.4), RATIO, 1.0), [2, 1])
    return aligned, *deform(aligned, moving, field, SPACING)


def rms_off(pose, displacement, bend=bend):
    """Return the root mean square of the distances from the true places, LR px, 8 px or more from the border."""
    off = fields.off_by(pose, displacement, HR_SHAPE, CENTRE, TO_LR, bend)
    return float(np.sqrt((off[8:-8, 8:-8] ** 2).mean()))


@needs_simpleitk
@pytest.mark.parametrize("noise", [0, 10])
def test_a_known_deformation_is_undone(noise):
    affine, aligned, found = register(noise, bend)
    assert found.verdict == "applied"
    displacement = found.field(slice(0, 100), slice(0, 102))
    before, after = rms_off(affine.pose, np.zeros((2, 100, 102))), rms_off(aligned.pose, displacement)
    # 0.3 px is what was promised before it was measured
    assert after < 0.3
    assert after < before / 3
    assert aligned.ncc > found.ncc_affine == affine.ncc
    assert found.largest_px == pytest.approx(np.linalg.norm(displacement, axis=0).max(), rel=1e-6)
    # the same HR, filtered once: what is compared before and after is LR alone
    assert np.array_equal(aligned.hr[aligned.inside], affine.hr[aligned.inside])
    # the true one has 0.87 to 1.13 along an axis
    assert 0.6 < found.least_jacobian < 1
    part = found.field(slice(13, 40), slice(50, 90))
    np.testing.assert_allclose(part, displacement[:, 13:40, 50:90], atol=1e-5)


@needs_simpleitk
def test_a_bend_of_a_third_of_a_pixel_is_told_from_noise():
    def slight(places):
        return bend(places) / AMPLITUDE

    affine, aligned, found = register(10, slight)
    assert found.verdict == "applied"
    before = rms_off(affine.pose, np.zeros((2, 100, 102)), slight)
    assert rms_off(aligned.pose, found.field(slice(0, 100), slice(0, 102)), slight) < before / 2


@needs_simpleitk
@pytest.mark.parametrize(("noise", "seed"), [(0, 0), (5, 1), (10, 2), (20, 3)])
def test_an_affine_pair_is_not_deformed(noise, seed):
    affine, aligned, found = register(noise, None, seed=seed)
    assert found.verdict == "no better than chance"
    assert aligned is affine
    assert found.field(slice(0, 100), slice(0, 102)) is None
    assert (found.largest_px, found.least_jacobian) == (0, 1)


@needs_simpleitk
def test_every_run_gives_the_same_bits_on_any_number_of_threads():
    import SimpleITK

    threads = SimpleITK.ProcessObject.GetGlobalDefaultNumberOfThreads()
    found = []
    try:
        for number in (1, 2):
            SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(number)
            found.append(register(5, bend)[2].field(slice(0, 100), slice(0, 102)))
    finally:
        SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    assert np.array_equal(*found)


def test_folding_is_seen():
    x = np.arange(200.0)
    for slope in (0.5, 0.9, 1.2):
        wave = np.broadcast_to(slope * 20 * np.sin(x / 20), (200, 200))
        # d/dx of x + wave is 1 + slope cos(x / 20)
        assert least_jacobian(np.stack([0 * wave, wave])) == pytest.approx(1 - slope, abs=0.01)
        assert least_jacobian(np.stack([wave.T, 0 * wave])) == pytest.approx(1 - slope, abs=0.01)
    shear = np.broadcast_to(5 * x[:, None], (200, 200))
    assert least_jacobian(np.stack([0 * shear, shear])) == pytest.approx(1)


@pytest.fixture(scope="module")
def acquired(tmp_path_factory):
    """Three slices: bent, affine, and one whose HR shows something else."""
    folder = tmp_path_factory.mktemp("acquired")
    bent, affine = acquire(5, bend), acquire(5, None, seed=1)
    other = np.rot90(IMAGE)[: HR_SHAPE[0], : HR_SHAPE[1]]
    paths = []
    for name, nm, images in (
        ("lr", 34, [bent[0], affine[0], affine[0]]),
        ("hr", 10, [bent[1], affine[1], other]),
    ):
        pixels = np.rint(np.clip(images, 0, 255)).astype(np.uint8)
        sizes = {"PhysicalSizeZ": 0.05, "PhysicalSizeY": nm / 1000, "PhysicalSizeX": nm / 1000}
        paths.append(folder / f"{name}.tif")
        tifffile.imwrite(paths[-1], pixels, ome=True, photometric="minisblack", metadata={"axes": "ZYX", **sizes})
    return paths


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def likeness(folder, row):
    """Return the correlation of the LR image with the HR one reduced, 8 px or more from the border."""
    lr, hr = (tifffile.imread(folder / row[side]) for side in ("lr", "hr"))
    reduced = hr.reshape(lr.shape[0], 3, lr.shape[1], 3).mean(axis=(1, 3))
    return np.corrcoef(lr[8:-8, 8:-8].ravel(), reduced[8:-8, 8:-8].ravel())[0, 1]


@needs_simpleitk
def test_a_pair_set_says_which_slices_are_deformed(acquired, tmp_path, capsys):
    plain = pair(*acquired, tmp_path / "plain", z_offset=0)
    arguments = ["pair", *map(str, acquired), "-o", str(tmp_path / "bent"), "--z-offset", "0", "--json"]
    assert main([*arguments, "--bspline", str(SPACING)]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (plain["bspline"], plain["deformed"]) == (None, 0)
    assert (done["bspline"], done["deformed"], done["pairs"], done["rejected"]) == (SPACING, 1, 2, 1)
    before, after = (table(tmp_path / name / "pairs.csv") for name in ("plain", "bent"))
    assert not {"bspline", "displacement_px", "jacobian", "ncc_affine"} & set(before[0])
    assert [row["bspline"] for row in after] == ["applied", "no better than chance"]
    for old, new in zip(before, after, strict=True):
        assert new["ncc_affine"] == old["ncc"]
    assert float(after[0]["ncc"]) > float(after[0]["ncc_affine"]) + 0.02
    assert 1 < float(after[0]["displacement_px"]) < 4
    assert 0.6 < float(after[0]["jacobian"]) < 1
    assert float(after[0]["residual_px"]) < 0.3 < float(before[0]["residual_px"])
    assert likeness(tmp_path / "bent", after[0]) > likeness(tmp_path / "plain", before[0]) + 0.02
    # the affine slice is the same to the last bit, and what was rejected is not made to fit
    same = [tifffile.imread(tmp_path / name / after[1]["lr"]) for name in ("plain", "bent")]
    assert np.array_equal(*same)
    rejected = [table(tmp_path / name / "rejected.csv") for name in ("plain", "bent")]
    assert rejected[0] == rejected[1]
    # HR keeps its pixels, but for gain and offset
    hr = tifffile.imread(acquired[1])[0].astype(np.float64)
    row = after[0]
    top, left, height, width = (int(row[f"hr_{name}"]) for name in ("row", "col", "rows", "cols"))
    expected = float(row["gain"]) * hr[top : top + height, left : left + width] + float(row["offset"])
    np.testing.assert_allclose(tifffile.imread(tmp_path / "bent" / row["hr"]), expected, atol=0.01)


def test_what_cannot_be_done_is_refused_at_once(acquired, tmp_path, monkeypatch):
    for spacing in (15, 0, -3, float("nan"), float("inf")):
        with pytest.raises(UsageError, match=r"`bspline` is .*; give the distance of control points in LR px, 16 or"):
            pair(*acquired, tmp_path / "set", bspline=spacing)
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(UsageError, match=r"deforming needs packages .*pip install .*simpleitk"):
        pair(*acquired, tmp_path / "set", bspline=32)
    assert not list(tmp_path.iterdir())

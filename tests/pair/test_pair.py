"""emsr-fast pair: from two real acquisitions to a set that trains; what is refused; nothing is half-written."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
import zarr
from PIL import Image

import fields
from emsr_fast import UsageError, VolumeError, available_models, load_model
from emsr_fast.cli import main
from emsr_fast.pair import pair
from emsr_fast.train import read_config, train
from emsr_fast.train.config import Source
from emsr_fast.train.pairs import pairs_of

CORNER, HR_SHAPE, LR_SHAPE, RATIO, DEGREES, OFFSET = (20, 30), (141, 138), (57, 57), 3.36, 1.2, 3
TO_LR = fields.matrix(RATIO, DEGREES)
CENTRE = (np.array(CORNER) + np.array(HR_SHAPE) / 2) / 3.33 - 0.5 + (0.3, -0.4)


def write(path, pixels, voxel_nm):
    sizes = {f"PhysicalSize{axis}": size / 1000 for axis, size in zip("ZYX", voxel_nm, strict=True) if size}
    tifffile.imwrite(path, pixels, ome=True, photometric="minisblack", metadata={"axes": "ZYX", **sizes})
    return path


@pytest.fixture(scope="module")
def acquired(tmp_path_factory):
    """LR of 9 slices, and HR of 6 of them from slice 3 on; in HR slice 2 a hole, slice 4 nothing but noise."""
    stack = Path(__file__).parents[2] / "examples" / "data" / "flyem_fibsem_10nm_48x192x192.tif"
    # every second slice: neighbours 20 nm apart are told from each other
    pixels = tifffile.imread(stack)[:18:2].astype(np.float64)
    rng = np.random.default_rng(0)
    lr = np.stack([fields.acquired_lr(image, CORNER, HR_SHAPE, CENTRE, TO_LR, LR_SHAPE) for image in pixels])
    lr = np.rint(np.clip(0.9 * lr + 10 + rng.normal(0, 4, lr.shape), 0, 255)).astype(np.uint8)
    hr = pixels[OFFSET:, CORNER[0] : CORNER[0] + HR_SHAPE[0], CORNER[1] : CORNER[1] + HR_SHAPE[1]]
    hr = np.rint(np.clip(hr + rng.normal(0, 3, hr.shape), 0, 255)).astype(np.uint8)
    hr[2, :50, 60:] = rng.integers(0, 255, (50, 78))
    hr[4] = rng.integers(0, 255, HR_SHAPE)
    folder = tmp_path_factory.mktemp("acquired")
    return write(folder / "lr.tif", lr, (20, 33.3, 33.3)), write(folder / "hr.tif", hr, (20, 10, 10))


@pytest.fixture(scope="module")
def made(acquired, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "set"
    return folder, pair(*acquired, folder)


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_stack_is_found_in_place_and_depth(made):
    folder, done = made
    assert done["z_offset"] == OFFSET
    rows = table(folder / "pairs.csv")
    assert [int(row["hr_slice"]) for row in rows] == [0, 1, 2, 3, 5]
    assert all(int(row["lr_slice"]) == int(row["hr_slice"]) + OFFSET for row in rows)
    whole = [row for row in rows if row["hr_slice"] != "2"]
    mean = {name: np.mean([float(row[name]) for row in whole]) for name in rows[0] if name not in ("lr", "hr")}
    # a field of 42 px is small: single slices are less exact than their mean
    assert [mean["shift_y_px"], mean["shift_x_px"]] == pytest.approx(CENTRE, abs=0.05)
    assert mean["rotation_deg"] == pytest.approx(DEGREES, abs=0.1)
    assert mean["magnification"] == pytest.approx(RATIO / 3.33, rel=0.003)
    assert mean["gain"] == pytest.approx(0.9, rel=0.05)
    assert all(float(row["ncc"]) > 0.9 and float(row["residual_px"]) < 0.2 for row in whole)


def test_what_does_not_fit_is_left_out(made):
    folder, _ = made
    (rejected,) = table(folder / "rejected.csv")
    assert rejected["hr_slice"] == "4"
    assert "is below 0.6" in rejected["reason"]
    holed = next(row for row in table(folder / "pairs.csv") if row["hr_slice"] == "2")
    first, last = int(holed["hr_row"]), int(holed["hr_row"]) + int(holed["hr_rows"])
    assert first >= 48
    assert last == 141


def test_pairs_show_the_same_at_exactly_three_to_one(made, acquired):
    folder, _ = made
    source = tifffile.imread(acquired[1])
    for row in table(folder / "pairs.csv"):
        lr, hr = (tifffile.imread(folder / row[side]) for side in ("lr", "hr"))
        assert lr.dtype == hr.dtype == np.float32
        assert hr.shape == (3 * lr.shape[0], 3 * lr.shape[1])
        gain, offset, top, left = (float(row[name]) for name in ("gain", "offset", "hr_row", "hr_col"))
        same = source[int(row["hr_slice"])][int(top) :, int(left) :][: hr.shape[0], : hr.shape[1]]
        # never clipped, never resampled
        np.testing.assert_allclose(hr, gain * same + offset, atol=0.01)
        reduced = hr.reshape(lr.shape[0], 3, lr.shape[1], 3).mean(axis=(1, 3))
        assert np.corrcoef(lr.ravel(), reduced.ravel())[0, 1] > 0.9
        assert abs(lr.mean() - reduced.mean()) < 1.5
    with tifffile.TiffFile(folder / row["lr"]) as file:
        assert 'PhysicalSizeX="30.0"' in file.ome_metadata
    with Image.open(folder / "preview.png") as sheet:
        assert min(sheet.size) > 400
        assert np.asarray(sheet).std() > 20


def test_a_pair_set_trains_as_it_is(made, tmp_path):
    folder, _ = made
    small = ["steps=4", "validate_every=2", "batch=2"]
    config = read_config(folder / "train.yaml", [*small, "validation_crops=2", f"output={tmp_path / 'run'}"])
    lines = []
    outcome = train(config, say=lines.append)
    assert outcome.steps == 4
    assert load_model(outcome.model).config.scale == 3
    assert any("5 pairs: 4 to learn from, 1 held back" in line for line in lines)
    # LR as `infer` would take it, and HR on the same scale
    training, _ = pairs_of(config.sources[0], 3, config.crop, tmp_path)
    for p in training:
        assert (p.origin.normalisation.low, p.origin.normalisation.high) == (0, 255)
        assert p.reference.normalisation == p.origin.normalisation


def test_stacks_of_one_shape_as_zarr_train_too(acquired, tmp_path, capsys):
    arguments = ["pair", *map(str, acquired), "-o", str(tmp_path / "set"), "--format", "zarr", "--json"]
    assert main([*arguments, "--z-offset", str(OFFSET)]) == 0
    done = json.loads(capsys.readouterr().out)
    # the slice with a hole costs less than a smaller field of all of them
    assert (done["pairs"], done["rejected"]) == (4, 2)
    lr, hr = (zarr.open_group(tmp_path / "set" / f"{side}.ome.zarr", mode="r")["0"][:] for side in ("LR", "HR"))
    assert (lr.shape, hr.shape) == ((4, 47, 46), (4, 141, 138))
    reduced = hr.reshape(4, 47, 3, 46, 3).mean(axis=(2, 4))
    assert np.corrcoef(lr.ravel(), reduced.ravel())[0, 1] > 0.95
    small = ["--steps=2", "--crop=16"]
    assert main(["train", str(tmp_path / "set" / "train.yaml"), *small]) == 0
    # the table names each stack once a slice, and is one source all the same
    training, _ = pairs_of(Source(strategy="real", pairs=tmp_path / "set" / "pairs.csv"), 3, 16, tmp_path)
    assert len(training) == 4


def test_training_refuses_pairs_that_do_not_show_the_same(made, tmp_path):
    folder, _ = made
    rows = [row for row in table(folder / "pairs.csv") if row["hr_rows"] == "141"]
    turned = np.rot90(tifffile.imread(folder / rows[0]["hr"]), 2)
    tifffile.imwrite(tmp_path / "turned.tif", turned)
    (tmp_path / "pairs.csv").write_text(f"lr,hr\n{folder / rows[0]['lr']},turned.tif\n")
    source = Source(strategy="real", pairs=tmp_path / "pairs.csv", intensity_range="0:255")
    with pytest.raises(
        VolumeError, match=r"do not show the same field: correlation -?0\.[0-2]\d, at least 0\.3; check"
    ):
        pairs_of(source, 3, 16, tmp_path)
    right = source.model_copy(update={"pairs": folder / "pairs.csv"})
    assert len(pairs_of(right, 3, 16, tmp_path)[0]) == 5


def _wrong(folder, lr, hr):
    """Yield (name, LR, HR, options, error, words) of what people give by mistake."""
    images = tifffile.imread(lr), tifffile.imread(hr)
    flat = write(folder / "flat.tif", np.full_like(images[1], 9), (20, 10, 10))
    black = write(folder / "black.tif", np.full_like(images[0], 9), (20, 33.3, 33.3))
    apart = write(folder / "apart.tif", images[1], (40, 10, 10))
    unsized = write(folder / "unsized.tif", images[1], (None, None, None))
    oblong = write(folder / "oblong.tif", images[1], (20, 10, 12))
    turned = write(folder / "turned.tif", np.rot90(images[1], 1, (1, 2)), (20, 10, 10))
    broken = images[0].astype(np.float32)
    broken[OFFSET + 3, 20, 20] = np.nan
    broken = write(folder / "nan.tif", broken, (20, 33.3, 33.3))
    missing = folder / "missing.tif"
    yield "missing", lr, missing, {}, VolumeError, "missing.tif does not exist"
    yield "constant HR", lr, flat, {}, VolumeError, "flat.tif is constant"
    yield "constant LR", black, hr, {}, VolumeError, "black.tif is constant"
    yield "other spacing", lr, apart, {}, VolumeError, "20 nm apart in .* and 40 nm in"
    yield "no sizes", lr, unsized, {}, VolumeError, "unsized.tif states no pixel size .*`hr_voxel=Z,Y,X`"
    yield "oblong", lr, oblong, {}, VolumeError, "pixels of 10 x 12 nm"
    yield "sizes swapped", hr, lr, {}, VolumeError, "0.3 HR pixels.*x3 need 2.4 to 3.75"
    yield "HR tiny", hr, lr, {"lr_voxel": "33", "hr_voxel": "11"}, VolumeError, "19x19 LR px; at least 24"
    tiled = write(folder / "tiled.tif", np.tile(images[1], (1, 4, 4)), (20, 3.3, 3.3))
    yield "HR larger", hr, tiled, {}, VolumeError, r"covers 186x182 LR px, more than .* \(141x138\)"
    yield "other tissue", lr, turned, {"z_offset": OFFSET}, VolumeError, "was not found in .* NCC of 0"
    yield "NaN", broken, hr, {"z_offset": OFFSET}, VolumeError, f"slice {OFFSET + 3} of .*nan.tif has 1 NaN"
    yield "no such depth", lr, hr, {"z_offset": 99}, VolumeError, "with `z_offset=99` no slice"
    yield "no such slices", lr, hr, {"slices": "40:"}, UsageError, "reach beyond"
    yield "bad voxel", lr, hr, {"hr_voxel": "1x2"}, UsageError, "'1x2'; give Z,Y,X in nm"
    yield "bad scale", lr, hr, {"scale": 5}, UsageError, "`scale` is 5"
    yield "bad ncc", lr, hr, {"min_ncc": 1.5}, UsageError, "`min_ncc` is 1.5"
    yield "bad angle", lr, hr, {"max_angle": 90}, UsageError, "`max_angle` is 90"
    yield "bad format", lr, hr, {"kind": "png"}, UsageError, "`format` is 'png'"
    yield "too strict", lr, hr, {"min_ncc": 0.9999, "z_offset": OFFSET}, VolumeError, "was not found"


def test_bad_input_is_named_and_nothing_is_written(acquired, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    for name, lr, hr, options, error, words in _wrong(tmp_path / "in", *acquired):
        with pytest.raises(error, match=words) as caught:
            pair(lr, hr, tmp_path / "out" / "set", **options)
        assert "\n" not in str(caught.value), name
        assert not list((tmp_path / "out").iterdir()), name


def test_places_that_are_taken_are_kept(acquired, made, tmp_path, capsys):
    folder, _ = made
    with pytest.raises(VolumeError, match="exists; choose another name or give `overwrite=True`"):
        pair(*acquired, folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.doc").write_text("x")
    with pytest.raises(VolumeError, match="is not a pair set: not overwritten"):
        pair(*acquired, tmp_path / "other", overwrite=True)
    with pytest.raises(UsageError, match="contains the input"):
        pair(*acquired, acquired[0].parent)
    assert main(["pair", *map(str, acquired), "-o", str(tmp_path / "no" / "set")]) == 3
    assert "mkdir -p" in capsys.readouterr().err


def test_a_pair_set_is_replaced_at_the_very_end(acquired, tmp_path, monkeypatch):
    single = {"slices": "0:1", "z_offset": OFFSET}
    pair(*acquired, tmp_path / "set", **single)
    before = (tmp_path / "set" / "pairs.csv").read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("emsr_fast.pair.job.pair_sheet", full)
        with pytest.raises(VolumeError, match="the disk is full"):
            pair(*acquired, tmp_path / "set", slices="1:2", z_offset=OFFSET, overwrite=True)
    assert (tmp_path / "set" / "pairs.csv").read_bytes() == before
    pair(*acquired, tmp_path / "set", slices="1:2", z_offset=OFFSET, overwrite=True)
    assert [row["hr_slice"] for row in table(tmp_path / "set" / "pairs.csv")] == ["1"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["set"]


def test_a_signal_leaves_nothing_behind(acquired, tmp_path):
    lr, hr = (
        np.tile(tifffile.imread(path)[first], (40, 1, 1)) for path, first in zip(acquired, (OFFSET, 0), strict=True)
    )
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    lr = write(tmp_path / "in" / "lr.tif", lr, (20, 33.3, 33.3))
    hr = write(tmp_path / "in" / "hr.tif", hr, (20, 10, 10))
    process = subprocess.Popen(
        [sys.executable, "-m", "emsr_fast", "pair", lr, hr, "-o", tmp_path / "out" / "set", "--z-offset", "0"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").iterdir()) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert errors.splitlines()[-1].startswith("error: stopped by SIGTERM")
    assert not list((tmp_path / "out").iterdir())


def test_the_settings_are_those_of_a_training_run(made):
    folder, done = made
    settings = yaml.safe_load((folder / "train.yaml").read_text())
    assert settings["start_from"] in available_models()
    assert load_model(settings["start_from"]).config.scale == 3
    assert settings["sources"][0]["validation_share"] == 0.1
    assert settings["minutes"] <= 60
    assert settings["sources"][0]["intensity_range"] == "0:255"
    assert settings["crop"] % 4 == 0
    written = json.loads((folder / "pair.json").read_text())
    assert written["z_offset"] == OFFSET
    assert written["pairs"] == done["pairs"] == 5

"""Training: pairs, what is held back of them, and crops."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from emsr_fast import UsageError, VolumeError
from emsr_fast.train import TrainConfig, train
from emsr_fast.train.config import Source
from emsr_fast.train.dataset import Crops, Numbers, crop_of
from emsr_fast.train.degrade import reduce
from emsr_fast.train.hold_back import Pair
from emsr_fast.train.pairs import check_apart, pairs_of
from emsr_fast.train.volumes import TrainingVolume


def _share_of(tmp_path, shapes, **settings):
    """Return the pairs to train on and those held back, of volumes of ``shapes``."""
    rng, rows = np.random.default_rng(0), []
    tmp_path.mkdir(exist_ok=True)
    for number, shape in enumerate(shapes):
        path = tmp_path / f"{number}.tif"
        tifffile.imwrite(path, rng.integers(0, 255, shape).astype(np.uint8), photometric="minisblack")
        rows.append(f"{path},{path}")
    (tmp_path / "t.csv").write_text("\n".join(["lr,hr", *rows]))
    source = Source(pairs=tmp_path / "t.csv", validation_share=0.1, **settings)
    training, held = pairs_of(source, 3, 8, Path())
    check_apart(training, held)
    return training, held


@pytest.mark.parametrize(
    ("shapes", "trained", "held"),
    [
        ([(1, 48, 48)] * 20, 18, {("5.tif", 0), ("15.tif", 0)}),
        ([(1, 48, 48)] * 5, 4, {("2.tif", 0)}),
        ([(20, 48, 48)], 18, {("0.tif", 18), ("0.tif", 19)}),
        ([(3, 48, 48), (12, 48, 48)], 14, {("1.tif", 11)}),
    ],
)
def test_a_share_of_the_slices_is_held_back(tmp_path, shapes, trained, held):
    training, validation = _share_of(tmp_path, shapes)
    assert len(training) == trained
    assert {(p.origin.path.name, p.z) for p in validation} == held


def test_of_few_slices_rows_are_held_back(tmp_path):
    training, held = _share_of(tmp_path, [(1, 400, 48), (2, 100, 60)])
    # a tenth, but at least a crop, in whole LR pixels
    assert [p.rows for p in training] == [(0, 360), (0, 75), (0, 75)]
    assert [p.rows for p in held] == [(360, 400), (75, 100), (75, 100)]
    with pytest.raises(VolumeError, match="give a smaller crop"):
        _share_of(tmp_path / "small", [(1, 40, 48)])
    with pytest.raises(ValueError, match="validation_share stands alone"):
        Source(hr=tmp_path, validation_share=0.1, validation_every=3)


def test_crops_depend_on_seed_and_number_only(stack):
    config = TrainConfig(sources=[Source(hr=stack)], crop=16, extra_lr_sigma=(1, 5), contrast=0.2)
    pairs, _ = pairs_of(config.sources[0], 3, 16, Path())
    first, second = Crops([(1.0, pairs)], config, 3), Crops([(1.0, list(pairs))], config, 3)
    for number in (0, 7, 100_000):
        for a, b in zip(first[number], second[number], strict=True):
            assert torch.equal(a, b)
    assert not torch.equal(first[0][0], first[1][0])
    assert first[0][0].shape == (1, 16, 16)
    assert first[0][1].shape == (1, 48, 48)


def test_two_processes_share_the_crops_of_one():
    whole = [number for batch in Numbers(3, 9, 4) for number in batch]
    shares = [list(Numbers(3, 9, 4, rank, 2)) for rank in range(2)]
    assert [n for a, b in zip(*shares, strict=True) for n in (*a, *b)] == whole


def test_acquired_pairs_show_the_same_field(tmp_path):
    hr = np.random.default_rng(0).integers(0, 255, (2, 90, 120)).astype(np.uint8)
    lr = np.rint(hr.reshape(2, 30, 3, 40, 3).mean(axis=(2, 4))).astype(np.uint8)
    tifffile.imwrite(tmp_path / "hr.tif", hr, photometric="minisblack")
    tifffile.imwrite(tmp_path / "lr.tif", lr, photometric="minisblack")
    origin, reference = TrainingVolume(tmp_path / "lr.tif"), TrainingVolume(tmp_path / "hr.tif")
    for number in range(20):
        pair = Pair(origin, number % 2, reference, number % 2, (10, 80), None)
        y, x = crop_of(pair, 8, 3, np.random.default_rng(number))
        np.testing.assert_allclose(reduce(x, 3), y, atol=0.5 / 255 + 1e-6)


def test_what_is_held_back_is_never_trained_on(stack):
    source = Source(hr=stack, slices="0:40", validation_slices="30:48", reference_offset=1)
    training, validation = pairs_of(source, 3, 16, Path())
    # slice 29 would refer to slice 30, which is held back
    assert [p.z for p in training] == list(range(29))
    assert [p.z for p in validation] == list(range(30, 47))
    assert all(p.reference_z == p.z + 1 for p in (*training, *validation))
    by_rows = Source(hr=stack, rows=":96", validation_rows="120:")
    training, validation = pairs_of(by_rows, 3, 16, Path())
    assert {p.rows for p in training} == {(0, 96)}
    assert {p.rows for p in validation} == {(120, 192)}
    # rows held back are not trained on, also where nobody said which to train on
    training, _ = pairs_of(Source(hr=stack, validation_rows="120:"), 3, 16, Path())
    assert {p.rows for p in training} == {(0, 120)}
    with pytest.raises(UsageError, match="lie in the middle of rows"):
        pairs_of(Source(hr=stack, validation_rows="60:120"), 3, 16, Path())


def test_one_source_must_not_train_on_what_another_holds_back(stack, small_run):
    held = Source(hr=stack, slices="0:8", validation_slices="40:42")
    everything = Source(hr=stack, reference_offset=1)
    training, _ = pairs_of(everything, 3, 16, Path())
    _, validation = pairs_of(held, 3, 16, Path())
    with pytest.raises(UsageError, match=r"slice 4[01] is trained on by one source and held back by another"):
        check_apart(training, validation)
    check_apart([p for p in training if p.z < 39], validation)
    apart = [replace(p, rows=(0, 90)) for p in training]
    check_apart(apart, [replace(p, rows=(96, 192)) for p in validation])


def test_slices_left_out_are_not_read(tmp_path, stack):
    pixels = tifffile.imread(stack)[:4].astype(np.float32)
    pixels[0] = np.nan
    pixels[1] = 7
    tifffile.imwrite(tmp_path / "x.tif", pixels, photometric="minisblack")
    training, _ = pairs_of(Source(hr=tmp_path / "x.tif", slices="2:"), 3, 16, Path())
    assert [p.z for p in training] == [2, 3]
    for slices, message in (("1:", "slice 1 is constant"), (":", "NaN")):
        with pytest.raises(VolumeError, match=message):
            pairs_of(Source(hr=tmp_path / "x.tif", slices=slices), 3, 16, Path())


def test_a_folder_of_single_images_has_no_next_slice(tmp_path, stack):
    for z in range(2):
        Image.fromarray(tifffile.imread(stack)[z]).save(tmp_path / f"{z}.png")
    with pytest.raises(UsageError, match="needs volume: true"):
        pairs_of(Source(hr=tmp_path, reference_offset=1), 3, 16, Path())
    training, _ = pairs_of(Source(hr=tmp_path, reference_offset=1, volume=True), 3, 16, Path())
    assert [(p.z, p.reference_z) for p in training] == [(0, 1)]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("missing", "does not exist"),
        ("unpaired", "has 1 images and .* has 2"),
        ("larger", r"expected \(1, 96, 96\) at x3"),
        ("constant", "is constant"),
        ("dtypes", "store both alike"),
        ("contrast", "differ in contrast"),
        ("nan", "NaN or infinite"),
        ("small", "give a smaller crop"),
    ],
)
def test_bad_data_is_named_before_training(tmp_path, spoil, message):
    y, x = np.mgrid[:96, :96] / 96
    hr = np.rint(128 + 90 * np.sin(9 * x) * np.cos(7 * y)).astype(np.uint8)
    lr = np.rint(reduce(hr.astype(np.float32), 3)).astype(np.uint8)
    for name in ("HR", "LR"):
        (tmp_path / name).mkdir()
    if spoil == "unpaired":
        Image.fromarray(hr).save(tmp_path / "HR" / "1.png")
    if spoil == "larger":
        hr = lr
    if spoil == "constant":
        hr = np.full_like(hr, 7)
    if spoil == "contrast":
        lr = (lr // 6).astype(np.uint8)
    hr = hr.astype({"dtypes": np.uint16, "nan": np.float32}.get(spoil, np.uint8))
    if spoil == "nan":
        hr[3, 4] = np.nan
        lr = lr.astype(np.float32)
    tifffile.imwrite(tmp_path / "HR" / "0.tif", hr)
    tifffile.imwrite(tmp_path / "LR" / "0.tif", lr)
    source = {"strategy": "real", "hr": tmp_path / ("none" if spoil == "missing" else "HR"), "lr": tmp_path / "LR"}
    config = {"output": tmp_path / "run", "sources": [source], "crop": 64 if spoil == "small" else 16, "steps": 1}
    with pytest.raises(VolumeError, match=message):
        train(TrainConfig.model_validate(config), say=lambda line: None)


def test_pairs_from_a_list_and_from_endings(tmp_path, stack):
    pixels = tifffile.imread(stack)
    for number in range(2):
        Image.fromarray(pixels[number]).save(tmp_path / f"s{number}_B.png")
        Image.fromarray(pixels[number, 1::3, 1::3]).save(tmp_path / f"s{number}_A.png")
    (tmp_path / "pairs.csv").write_text("\ufefflr,hr\ns0_A.png,s0_B.png\ns1_A.png,s1_B.png\n")
    listed = Source(strategy="real", pairs=tmp_path / "pairs.csv")
    ended = Source(strategy="real", hr=tmp_path, pattern=("_A.png", "_B.png"))
    names = [
        [(p.origin.path.name, p.reference.path.name) for p in pairs_of(s, 3, 16, Path())[0]] for s in (listed, ended)
    ]
    assert names[0] == names[1] == [("s0_A.png", "s0_B.png"), ("s1_A.png", "s1_B.png")]
    (tmp_path / "s1_A.png").unlink()
    with pytest.raises(VolumeError, match="'s1' has no partner"):
        pairs_of(ended, 3, 16, Path())
    (tmp_path / "pairs.csv").write_text("lr,hr\nx.png\n")
    with pytest.raises(VolumeError, match="row 1 lacks lr or hr"):
        pairs_of(listed, 3, 16, Path())
    (tmp_path / "pairs.csv").write_text("a,b\n1,2\n")
    with pytest.raises(VolumeError, match="must have the columns lr and hr"):
        pairs_of(listed, 3, 16, Path())


@pytest.mark.parametrize("kind", ["wavelet", "nlm"])
def test_denoised_references_are_made_once(tmp_path, stack, kind):
    tifffile.imwrite(tmp_path / "lr.tif", tifffile.imread(stack)[:2, 1::3, 1::3], photometric="minisblack")
    tifffile.imwrite(tmp_path / "hr.tif", tifffile.imread(stack)[:2], photometric="minisblack")
    source = Source(strategy="denoised", lr=tmp_path / "lr.tif", hr=tmp_path / "hr.tif", denoiser=kind)
    pairs_of(source, 3, 16, tmp_path / "kept")
    (made,) = (tmp_path / "kept").iterdir()
    noisy, clean = tifffile.imread(stack)[0] / 255, tifffile.imread(made)[0]
    assert np.abs(clean - noisy).mean() < 0.05
    assert np.abs(np.diff(clean)).mean() < 0.9 * np.abs(np.diff(noisy)).mean()
    date = made.stat().st_mtime_ns
    training, _ = pairs_of(source, 3, 16, tmp_path / "kept")
    assert made.stat().st_mtime_ns == date
    with h5py.File(tmp_path / "hr.h5", "w") as file:
        file["raw"] = tifffile.imread(tmp_path / "hr.tif")
    inside = source.model_copy(update={"hr": Path(f"{tmp_path}/hr.h5:/raw")})
    assert len(pairs_of(inside, 3, 16, tmp_path / "other")[0]) == 2
    # in the grey values of its source, whatever its own range
    np.testing.assert_array_equal(training[0].reference.crop(0, slice(0, 9), slice(0, 9)), clean[:9, :9])

"""Training: one image serves at many pixel sizes, grey values and kinds of noise."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from emsr_fast import UsageError, VolumeError
from emsr_fast.io.resample import coarser
from emsr_fast.train import read_config
from emsr_fast.train.config import Degradation, Noise, Source, TrainConfig
from emsr_fast.train.dataset import Crops, crop_of
from emsr_fast.train.degrade import add_noise, reduce
from emsr_fast.train.pairs import pairs_of
from training import run, weights

AUGMENTED = {
    "gamma": [0.7, 1.4],
    "inversion": 0.5,
    "plain": 0.2,
    "contrast": 0.2,
    "sources": [
        {
            "hr": "",
            "slices": "0:8",
            "validation_slices": "40:42",
            "degradation": {
                "hr_reduction": [1, 3],
                "blur_sigma_px": [0, 0.8],
                "noise": {"sigma": [0, 25], "signal_share": [0, 1], "blur_px": [0, 0.5]},
            },
        }
    ],
}


@pytest.fixture
def ramp(tmp_path):
    """Return an image whose grey values say where a pixel lies: row + 2 x column, of 400."""
    y, x = np.mgrid[:130, :130]
    tifffile.imwrite(tmp_path / "ramp.tif", (y + 2 * x).astype(np.float32), photometric="minisblack")
    return tmp_path / "ramp.tif"


def pairs_at(path, reduction, crop=12, grey="0:400"):
    source = Source(hr=path, intensity_range=grey, degradation=Degradation(hr_reduction=reduction))
    return pairs_of(source, 3, crop, Path())[0]


def augmented(small_run):
    (source,) = AUGMENTED["sources"]
    return {**small_run, **AUGMENTED, "sources": [{**source, "hr": small_run["sources"][0]["hr"]}]}


def test_hr_is_reduced_by_any_factor_and_lr_with_it(ramp):
    (pair,) = pairs_at(ramp, (1, 3))
    slopes = []
    for seed in range(200):
        y, x = crop_of(pair, 12, 3, np.random.default_rng(seed))
        assert (y.shape, x.shape) == ((12, 12), (36, 36))
        # both show the same field
        np.testing.assert_allclose(y, reduce(x, 3), atol=1e-5)
        slopes.append(400 * float(np.diff(x, axis=0).mean()))
    # a step of a pixel is the factor; half of the factors lie below the root of 3
    assert 1 <= min(slopes) < 1.05
    assert 2.9 < max(slopes) <= 3.001
    assert np.mean(np.array(slopes) < np.sqrt(3)) == pytest.approx(0.5, abs=0.12)


def test_references_get_cleaner_as_they_get_coarser():
    noise = np.random.default_rng(0).standard_normal((300, 300)).astype(np.float32)
    for factor in (1.0, 1.5, 2.4, 3.0):
        # a mean of factor x factor pixels; a pixel cut in two counts in part: at most as much noise again
        assert coarser(noise, factor, (100, 100)).std() * factor == pytest.approx(1, abs=0.13)


def test_a_reduction_without_room_is_refused(ramp):
    with pytest.raises(VolumeError, match=r"130x130 HR px, a crop of 16 LR px, reduced by up to 3, needs 144x144"):
        pairs_at(ramp, (1, 3), 16)


def test_grey_values_of_both_change_alike(ramp):
    # all values lie between 0 and 0.3
    pairs = pairs_at(ramp, (1, 1), grey="0:1300")
    plain = TrainConfig(sources=[Source(hr=ramp)], crop=12, extra_lr_sigma=(0, 0))

    def crops(**settings):
        return [Crops([(1, pairs)], plain.model_copy(update=settings), 3)[number] for number in range(400)]

    inverted = crops(inversion=0.25)
    for y, x, _ in inverted:
        np.testing.assert_allclose(y[0], reduce(x[0].numpy(), 3), atol=1e-6)
    assert np.mean([float(x.mean()) > 0.7 for _, x, _ in inverted]) == pytest.approx(0.25, abs=0.07)
    assert max(float(x.max()) for _, x, _ in crops()) < 0.31
    noise = Degradation(noise=Noise(sigma=(10, 10)))
    noisy = [(1, [replace(pair, degradation=noise) for pair in pairs])]
    plain_crops = [Crops(noisy, plain.model_copy(update={"plain": 1.0}), 3)[number] for number in range(100)]
    for y, x, _ in plain_crops:
        assert x.min() == x.max()
        assert float((y - x.mean()).std()) * 255 == pytest.approx(10, rel=0.4)
    assert np.std([float(x.mean()) for _, x, _ in plain_crops]) == pytest.approx(12**-0.5, rel=0.15)
    # the fifth power of 0.3 is 0.0024
    assert max(float(t.max()) for y, x, _ in crops(gamma=(5.0, 5.0)) for t in (y, x)) < 0.003


@pytest.mark.parametrize(("share", "at_black", "at_white"), [(0.0, 100, 100), (1.0, 0, 200), (0.5, 50, 150)])
def test_a_share_of_the_noise_grows_with_the_intensity(share, at_black, at_white):
    noise = Noise(sigma=(10, 10), signal_share=(share, share))
    for level, variance in ((0, at_black), (0.5, 100), (1, at_white)):
        noisy = add_noise(np.full((400, 400), level, np.float32), noise, np.random.default_rng(0))
        assert (noisy - level).var() * 255**2 == pytest.approx(variance, rel=0.03, abs=1e-6)


@pytest.mark.parametrize("blur", [0.0, 0.3, 0.5, 1.0])
def test_blurred_noise_keeps_its_strength_and_neighbours_become_alike(blur):
    noise = Noise(sigma=(10, 10), blur_px=(0, blur) if not blur else (blur, blur))
    noisy = add_noise(np.zeros((600, 600), np.float32), noise, np.random.default_rng(0)) * 255
    assert noisy.std() == pytest.approx(10, rel=0.02)
    # of a Gaussian sampled at whole pixels
    kernel = np.exp(-(np.arange(-8, 9) ** 2) / (2 * max(blur, 0.05) ** 2))
    alike = (kernel[1:] * kernel[:-1]).sum() / (kernel**2).sum()
    assert (noisy[1:] * noisy[:-1]).mean() / noisy.var() == pytest.approx(alike, abs=0.01)


def test_crops_are_the_same_again_and_a_run_goes_on_bit_for_bit(tmp_path, small_run):
    settings = augmented(small_run)
    config = TrainConfig.model_validate(settings)
    pairs, _ = pairs_of(config.sources[0], 3, 16, Path())
    for number in (0, 5, 1_000_000):
        one, two = (Crops([(1.0, pairs)], config, 3)[number] for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    # three trainings: seconds
    settings |= {"crop": 8, "validation_crops": 0}
    whole = run(settings, steps=2)
    run(settings, output=str(tmp_path / "parts"), steps=1)
    parts = run(settings, output=str(tmp_path / "parts"), steps=2, resume=True)
    for name, value in weights(whole.model).items():
        assert torch.equal(value, weights(parts.model)[name]), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("sources.0.degradation.hr_reduction=[0.5, 2]", "must be 1 or more"),
        ("sources.0.degradation.hr_reduction=[3, 2]", "from low to high"),
        ("sources.0.degradation.noise.signal_share=[0, 2]", "shares from 0 to 1"),
        ("gamma=[0, 1]", "must be above 0"),
        ("plain=2", "less than or equal to 1"),
        ("inversion=2", "less than or equal to 1"),
    ],
)
def test_a_wrong_setting_is_named(change, message):
    with pytest.raises(UsageError, match=message):
        read_config(None, ["sources=[{hr: x}]", change])

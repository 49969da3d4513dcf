"""Training on two scans of one field: the drift between them is taken out."""

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from emsr_fast import UsageError, VolumeError
from emsr_fast.train import read_config
from emsr_fast.train.config import Source
from emsr_fast.train.dataset import crop_of
from emsr_fast.train.degrade import reduce
from emsr_fast.train.drift import bent, drift_between, residual_px
from emsr_fast.train.pairs import pairs_of

SIDE = 144


def scene(seed=0):
    rng = np.random.default_rng(seed)
    fine, coarse = (ndimage.gaussian_filter(rng.standard_normal((SIDE, SIDE)), sigma) for sigma in (2, 6))
    return 0.5 + 0.1 * fine / fine.std() + 0.1 * coarse / coarse.std()


def wave():
    """Return a smooth drift of up to 1.5 px, as a stage makes it between two scans: (2, H, W)."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    return np.stack([1.0 + 0.5 * np.sin(3 * y), 1.2 * np.cos(3 * x) * (0.5 + y / 2)]).astype(np.float32)


def noisy(image, seed):
    return (image + 0.05 * np.random.default_rng(seed).standard_normal(image.shape)).astype(np.float32)


@pytest.fixture
def scans(tmp_path):
    """A folder with two noisy scans of one scene, the second drifted."""
    fixed = scene()
    # bending back by the drift at the place that is looked at: exact enough for a smooth drift, measured below
    images = {"a_A.tif": noisy(bent(fixed, -wave()), 1), "a_B.tif": noisy(fixed, 2)}
    for name, image in images.items():
        tifffile.imwrite(tmp_path / name, image, photometric="minisblack")
    return tmp_path


def pair_of(folder, **settings):
    source = Source(hr=folder, pattern=("_A.tif", "_B.tif"), intensity_range="0:1", **settings)
    ((pair,), _) = pairs_of(source, 3, 16, folder)
    return pair


def test_a_smooth_drift_is_found_in_spite_of_noise():
    fixed = scene()
    found = drift_between(noisy(fixed, 2), noisy(bent(fixed, -wave()), 1))
    # x + d(x) lies where -wave brought x: d(x) = wave(x + d(x))
    expected = np.stack([ndimage.map_coordinates(part, np.indices((SIDE, SIDE)) + found, order=1, mode="nearest")
                         for part in wave()])  # fmt: skip
    inner = np.s_[:, 12:-12, 12:-12]
    assert np.abs(found - expected)[inner].max() < 0.4
    assert np.sqrt(((found - expected)[inner] ** 2).mean()) < 0.15


def test_the_residual_is_the_shift_that_is_left():
    fixed = scene()
    for shift in (0.0, 0.7, 1.5):
        moved = ndimage.shift(fixed, (shift, 0), order=3, mode="nearest")
        # it is measured in steps of a twentieth along both axes, and looks up to a fifth smaller
        assert 0.8 * shift - 0.08 <= residual_px(fixed, moved) <= shift + 0.08
    assert residual_px(noisy(fixed, 1), noisy(scene(9), 2)) == float("inf")


def test_lr_is_made_of_what_the_reference_shows(scans):
    errors = {}
    for drift in (False, True):
        pair = pair_of(scans, drift=drift)
        found = []
        for seed in range(20):
            y, x = crop_of(pair, 16, 3, np.random.default_rng(seed))
            found.append(float(np.square(y - reduce(x, 3)).mean()))
        errors[drift] = np.mean(found)
    # what is left is the noise of both scans, in means of 3 x 3 pixels
    noise = 2 * (0.05 / 3) ** 2
    assert errors[True] < 1.2 * noise
    assert errors[False] > 3 * noise


def test_a_crop_is_the_same_part_of_the_slice_as_the_whole(scans):
    volume = pair_of(scans, drift=True).origin
    whole = volume.crop(0, slice(0, SIDE), slice(0, SIDE))
    np.testing.assert_allclose(volume.crop(0, slice(40, 90), slice(30, 101)), whole[40:90, 30:101], atol=2e-4)


def test_scans_that_cannot_be_registered_are_named(scans):
    tifffile.imwrite(scans / "a_A.tif", noisy(scene(9), 1), photometric="minisblack")
    with pytest.raises(
        VolumeError, match=r"a_A\.tif and .*a_B\.tif (show nothing|are still .* px apart).* after registra"
    ):
        pair_of(scans, drift=True)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{hr: x, drift: true}", "two scans"),
        ("{hr: x, lr: y, drift: true, reference_offset: 1}", "exclude each other"),
        ("{hr: x, lr: y, strategy: real, drift: true}", "strategy synthetic"),
    ],
)
def test_settings_that_contradict_it_are_refused(source, message):
    with pytest.raises(UsageError, match=message):
        read_config(None, [f"sources=[{source}]"])

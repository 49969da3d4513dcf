"""Decorrelation analysis: known cut-offs, the formula written a second time, and another program's figures."""

import json
import runpy

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from emsr_fast.metrics import decorrelation

# the published analysis samples 50 radii from 0 to Nyquist: a cut-off cannot be known better than to one of its steps
PUBLISHED_STEP = 0.5 / 49


def band_limited(side, frequency, sigma, seed):
    """Return white noise without anything beyond ``frequency`` cycles per pixel, and weaker white noise over all."""
    rng = np.random.default_rng(seed)
    place = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])
    signal = np.fft.ifft2(np.fft.fft2(rng.standard_normal((side, side))) * (place <= frequency)).real
    return signal / signal.std() + sigma * rng.standard_normal((side, side))


def curve_by_definition(image, sigma_px, radii):
    """Return d(r) as published: the spectrum against its phases inside a disk, pixel by pixel."""
    height, width = image.shape
    fade = [
        np.sin(np.pi / 2 * np.minimum((np.minimum(np.arange(n), np.arange(n)[::-1]) + 0.5) / 20, 1)) ** 2
        for n in (height, width)
    ]
    spectrum = np.fft.fft2((image - image.mean()) * np.outer(*fade))
    place = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    phases = spectrum / np.abs(spectrum)
    # a Gaussian blur of sigma_px, taken away
    blur = 0 if sigma_px is None else np.exp(-2 * np.pi**2 * sigma_px**2 * place**2)
    spectrum = spectrum * (1 - blur) * (place <= 0.5)
    curve = []
    for radius in radii:
        inside = phases * (place <= radius)
        power = np.sqrt((np.abs(spectrum) ** 2).sum() * (np.abs(inside) ** 2).sum())
        curve.append((spectrum * inside.conj()).sum().real / power)
    return np.array(curve)


@pytest.mark.parametrize("frequency", [0.1, 0.17, 0.25, 0.33, 0.42])
@pytest.mark.parametrize("sigma", [0.3, 0.6])
def test_a_known_cut_off_is_found_within_a_step_of_the_published_sampling(frequency, sigma):
    found = decorrelation(band_limited(512, frequency, sigma, seed=0))
    assert found.cut_off == pytest.approx(frequency, abs=PUBLISHED_STEP)
    assert found.resolution_px == 1 / found.cut_off
    assert found.step == pytest.approx(1 / 512)


@settings(max_examples=15, deadline=None)
@given(frequency=st.floats(0.06, 0.45), seed=st.integers(0, 2**32 - 1))
def test_any_cut_off_is_found(frequency, seed):
    found = decorrelation(band_limited(384, frequency, 0.5, seed))
    # a step of the published sampling, and a ring of frequencies of this image
    assert found.cut_off == pytest.approx(frequency, abs=PUBLISHED_STEP + 1 / 384)


@pytest.mark.parametrize("shape", [(96, 96), (97, 130)], ids=str)
def test_the_curves_are_those_of_the_definition(stack, shape):
    image = tifffile.imread(stack, key=3)[: shape[0], : shape[1]].astype(float)
    found = decorrelation(image)
    # radii between two rings of frequencies; the first of them hold too few pixels to be alike
    exact = curve_by_definition(image, None, found.frequency[4:] + 1 / (8 * min(image.shape)))
    assert found.unfiltered[4:] == pytest.approx(exact, abs=2e-3)


def test_a_signal_less_than_twice_its_noise_ends_unseen():
    """d = a r inside and (a - b) R^2 / r + b r outside has a maximum at R only where a > 2 b."""
    found = {}
    for height in (1.7, 2.4):
        sigma = np.sqrt(1 / (np.pi * 0.4**2) / (height**2 - 1))
        found[height] = decorrelation(band_limited(512, 0.4, sigma, seed=4)).cut_off
    assert found[1.7] is None
    assert found[2.4] == pytest.approx(0.4, abs=PUBLISHED_STEP)


def test_noise_and_smooth_images_have_no_cut_off_inside():
    noise = decorrelation(np.random.default_rng(1).standard_normal((256, 256)))
    assert noise.cut_off is None
    assert noise.resolution_px is None
    # signal up to the last frequency: there is no end to find
    assert decorrelation(band_limited(256, 0.8, 0.0, seed=2)).cut_off is None


def test_gain_and_offset_do_not_matter():
    image = band_limited(128, 0.2, 0.3, seed=3)
    assert decorrelation(image * 300 - 17).cut_off == decorrelation(image).cut_off


def test_what_cannot_be_analysed_is_refused():
    with pytest.raises(ValueError, match="constant"):
        decorrelation(np.zeros((80, 80)))
    with pytest.raises(ValueError, match="at least 64 px"):
        decorrelation(np.random.default_rng(0).random((80, 63)))


def test_real_detail_with_a_known_cut_off_agrees_with_nanopyx(stack, data):
    """From 0.2 cycles per px on; at 0.15 nanopyx misses the truth by 27 %."""
    known = json.loads((data / "nanopyx_figures.json").read_text())["decorrelation_px"]
    scans_of = runpy.run_path(str(data / "nanopyx_figures.py"))["scans_of"]
    image = tifffile.imread(stack, key=0)
    for frequency, theirs in known.items():
        found = decorrelation(scans_of(image, float(frequency))[0])
        assert found.cut_off == pytest.approx(float(frequency), abs=PUBLISHED_STEP)
        if float(frequency) >= 0.2:
            assert found.cut_off == pytest.approx(1 / theirs, abs=PUBLISHED_STEP)

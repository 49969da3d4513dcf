"""Fourier ring correlation: known answers, the formula written a second time, and another program's figures."""

import json
import runpy

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from emsr_fast.metrics import added, cut_off, ring_correlation, single_image_ring_correlation


def band_limited(shape, frequency, rng):
    """Return white noise without anything beyond ``frequency``, in cycles per pixel; standard deviation 1."""
    place = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])[None])
    signal = np.fft.ifft2(np.fft.fft2(rng.standard_normal(shape)) * (place <= frequency)).real
    return signal / signal.std()


def pair_of(shape, frequency, sigma, seed):
    rng = np.random.default_rng(seed)
    signal = band_limited(shape, frequency, rng)
    return [signal + sigma * rng.standard_normal(shape) for _ in range(2)]


def correlation_by_definition(image, other):
    """Return the curve from masks of single rings over the whole plane: slow, and nothing of ours in it."""
    height, width = image.shape
    row = 0.5 * (1 - np.cos(2 * np.pi * (np.arange(height) + 0.5) / height))
    column = 0.5 * (1 - np.cos(2 * np.pi * (np.arange(width) + 0.5) / width))
    window = row[:, None] * column[None]
    spectra = []
    for one in (image.astype(float), other.astype(float)):
        spectra.append(np.fft.fft2((one - (one * window).sum() / window.sum()) * window))
    side = min(height, width)
    radius = np.sqrt(np.fft.fftfreq(height)[:, None] ** 2 + np.fft.fftfreq(width)[None] ** 2) * side
    curve = []
    for ring in range(side // 2 + 1):
        inside = np.rint(radius) == ring
        a, b = spectra[0][inside], spectra[1][inside]
        curve.append((a * b.conj()).sum().real / np.sqrt((abs(a) ** 2).sum() * (abs(b) ** 2).sum()))
    return np.array(curve)


@pytest.mark.parametrize("shape", [(64, 64), (65, 97), (128, 90), (81, 64)], ids=str)
def test_the_curve_is_that_of_the_definition(shape):
    image, other = pair_of(shape, 0.2, 1.0, seed=0)
    curve = ring_correlation(image + 40, 3 * other - 7)
    expected = correlation_by_definition(image + 40, 3 * other - 7)
    assert curve.value[1:] == pytest.approx(expected[1:], abs=1e-9)
    assert curve.frequency == pytest.approx(np.arange(len(expected)) / min(shape))


@pytest.mark.parametrize("shape", [(512, 512), (600, 514)], ids=str)
@pytest.mark.parametrize("frequency", [0.15, 0.25, 0.4])
@pytest.mark.parametrize("sigma", [0.5, 1.0])
def test_a_band_limited_pair_has_its_known_cut_off_within_three_per_cent(shape, frequency, sigma):
    found = cut_off(ring_correlation(*pair_of(shape, frequency, sigma, seed=1)))
    assert found.limit == "crossing"
    assert found.frequency == pytest.approx(frequency, rel=0.03)
    assert found.resolution_px == pytest.approx(1 / frequency, rel=0.03)


@settings(max_examples=12, deadline=None)
@given(frequency=st.floats(0.2, 0.45), seed=st.integers(0, 2**31))
def test_the_cut_off_is_at_most_two_rings_too_fine(frequency, seed):
    # so many slices that chance stays below 1/7: ring 51 of one slice deviates by 0.12
    curves = [ring_correlation(*pair_of((256, 256), frequency, 0.5, [seed, z])) for z in range(10)]
    found = cut_off(added(curves))
    # the last ring of the signal is partly empty, and the window spreads it by two
    assert -1 <= (found.frequency - frequency) * 256 <= 2.5


def test_white_noise_shares_nothing_and_an_image_all_with_itself():
    rng = np.random.default_rng(2)
    noise = ring_correlation(*rng.standard_normal((2, 512, 512)))
    # about pi * ring numbers in each ring, each of them worth 1 / 3.78: mean(w^4) / mean(w^2)^2 of the window
    expected = np.sqrt(3.78 / (np.pi * np.arange(1, 257)))
    assert (np.abs(noise.value[1:]) < 5 * expected).all()
    assert abs(noise.value[20:].mean()) < 0.01
    limits = [cut_off(ring_correlation(*rng.standard_normal((2, 64, 64)))).limit for _ in range(50)]
    assert limits == ["nothing shared"] * 50
    image = rng.standard_normal((100, 130))
    same = ring_correlation(image, 0.1 * image + 9)
    assert same.value == pytest.approx(1)
    assert cut_off(same).limit == "sampling"
    assert cut_off(same).resolution_px is None


def test_the_chessboard_finds_a_cut_off_that_its_halves_can_hold():
    for frequency in (0.1, 0.15, 0.2):
        image, _ = pair_of((768, 768), frequency, 0.5, seed=3)
        found = cut_off(single_image_ring_correlation(image))
        assert found.frequency == pytest.approx(frequency, rel=0.03)
    noise = single_image_ring_correlation(np.random.default_rng(4).standard_normal((256, 256)))
    assert cut_off(noise).limit == "nothing shared"
    assert noise.frequency[-1] == pytest.approx(0.25)


def test_a_single_low_ring_does_not_end_the_signal():
    image, other = pair_of((256, 256), 0.3, 0.5, seed=5)
    curve = ring_correlation(image, other)
    curve.cross[20] = 0
    assert cut_off(curve).frequency == pytest.approx(0.3, rel=0.03)


def test_curves_of_slices_add_up():
    pairs = [pair_of((256, 256), 0.25, 3.0, seed) for seed in range(8)]
    curves = [ring_correlation(*pair) for pair in pairs]
    together = added(curves)
    assert together.cross == pytest.approx(sum(curve.cross for curve in curves))
    # the signal is a ninth of the noise: one slice is too noisy to tell, eight are not
    assert together.value[70:].std() < 0.6 * curves[0].value[70:].std()


def test_images_that_cannot_be_compared_are_refused():
    image = np.random.default_rng(0).standard_normal((40, 40))
    for other, words in (
        (image[:30], r"\(40, 40\) and \(30, 40\)"),
        (np.full((40, 40), 7), "constant: all its pixels are 7"),
        (np.where(image > 2, np.nan, image), "NaN or infinite"),
    ):
        with pytest.raises(ValueError, match=words):
            ring_correlation(image, other)
    with pytest.raises(ValueError, match="at least 16 px"):
        ring_correlation(image[:8], image[:8])


def test_real_detail_with_a_known_cut_off_agrees_with_nanopyx(stack, data):
    """nanopyx fades and smooths otherwise, and its cut-offs are 3 to 10 % too fine: ours are between."""
    known = json.loads((data / "nanopyx_figures.json").read_text())["frc_px"]
    scans_of = runpy.run_path(str(data / "nanopyx_figures.py"))["scans_of"]
    image = tifffile.imread(stack, key=0)
    for frequency, theirs in known.items():
        found = cut_off(ring_correlation(*scans_of(image, float(frequency)))).resolution_px
        assert theirs < found <= 1 / float(frequency), frequency

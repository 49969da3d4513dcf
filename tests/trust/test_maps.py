"""Maps of trust: turns that align exactly, noise by place, higher where the truth is worse, calibrations."""

import json

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from emsr_fast import load_model
from emsr_fast.engine import TorchEngine
from emsr_fast.errors import CheckpointError, VolumeError
from emsr_fast.metrics.noise import noise_of
from emsr_fast.train.degrade import reduce
from emsr_fast.trust.calibration import Calibration, calibration_curve, fit, read_calibration, spearman
from emsr_fast.trust.maps import RUNS, Trust, aligned_stop, box_mean, rounded
from emsr_fast.trust.noise_field import noise_at
from emsr_fast.trust.turns import TURNS, turned, turned_back

RNG = np.random.default_rng(0)
QUIET = Trust(gain=0.0, offset=0.0, calibration=None)
UNCALIBRATED = Trust(gain=0.0, offset=(4 / 255) ** 2, calibration=None)


def enlarged(image):
    """A network that knows no direction: each pixel nine times."""
    return image.repeat(3, axis=0).repeat(3, axis=1)


def maps_of(trust, run, image, own=None):
    """The maps of a whole slice, or of a part of it."""
    own = own or tuple(slice(0, side) for side in image.shape)
    return trust.maps(run, image, run(image), own, (0, 0, 0), 3)


@pytest.mark.parametrize("turn", TURNS)
def test_a_turn_goes_back_to_the_pixel_also_at_another_scale(turn):
    image = RNG.random((5, 7), dtype=np.float32)
    np.testing.assert_array_equal(turned_back(turned(image, turn), turn), image)
    np.testing.assert_array_equal(turned_back(enlarged(turned(image, turn)), turn), enlarged(image))


def test_the_turns_are_eight_different_ones():
    image = RNG.random((4, 4))
    assert len({turned(image, turn).tobytes() for turn in TURNS}) == 8


@pytest.mark.parametrize("shape", [(5, 7), (12, 8), (1, 3), (41, 16)], ids=str)
def test_a_network_without_directions_has_no_disagreement_but_that_of_noise(shape):
    ramp = (np.add.outer(np.arange(shape[0]) * 10, np.arange(shape[1])) / 500).astype(np.float32)
    calls = []

    def run(image):
        calls.append(image)
        return enlarged(image)

    found = maps_of(UNCALIBRATED, run, ramp)
    assert len(calls) == RUNS
    noise = UNCALIBRATED.sigma(ramp) * noise_at(0, slice(0, shape[0]), slice(0, shape[1]), 0)
    # eight runs equal, one off by d: their variance is d**2 / 9
    expected = np.sqrt(box_mean(enlarged((ramp + noise - ramp) ** 2 / 9), 4))
    np.testing.assert_allclose(found["disagreement"], expected, rtol=1e-3, atol=1e-7)
    # three equal numbers have a mean that is rounded
    assert np.abs(found["residual"]).max() * UNCALIBRATED.sigma(ramp).max() < 1e-6


def test_a_pixel_out_of_place_would_be_seen():
    ramp = np.tile(np.arange(12, dtype=np.float32), (12, 1))
    # off by an HR pixel to the right of whatever it is given
    found = maps_of(QUIET, lambda image: np.roll(enlarged(image), 1, axis=1), ramp)
    assert found["disagreement"][9:-9, 9:-9].min() > 0.3


@settings(max_examples=30, deadline=None)
@given(
    top=st.integers(0, 300), left=st.integers(0, 300), height=st.integers(1, 90), width=st.integers(1, 90),
    down=st.integers(0, 50), across=st.integers(0, 50),
)  # fmt: skip
def test_noise_belongs_to_its_place_whatever_is_asked_for(top, left, height, width, down, across):
    part = noise_at(3, slice(top, top + height), slice(left, left + width), 1)
    more = noise_at(3, slice(max(0, top - down), top + height + 7), slice(max(0, left - across), left + width + 3), 1)
    first, start = min(down, top), min(across, left)
    np.testing.assert_array_equal(part, more[first : first + height, start : start + width])


def test_noise_is_white_gaussian_and_new_in_each_slice_and_draw():
    whole = slice(0, 256), slice(0, 256)
    fields = [noise_at(z, *whole, draw) for z, draw in ((0, 0), (1, 0), (0, 1))]
    # 65,536 values: four standard errors
    for field in fields:
        assert abs(field.mean()) < 4 / 256
        assert abs(field.var() - 1) < 4 * np.sqrt(2) / 256
        assert abs((field[:, 1:] * field[:, :-1]).mean()) < 4 / 256
    for other in fields[1:]:
        assert abs((fields[0] * other).mean()) < 4 / 256


@given(side=st.integers(1, 4000), stop=st.integers(1, 4000))
def test_flipped_tiles_have_the_windows_of_the_flipped_slice(side, stop):
    if stop > side:
        stop, side = side, stop
    found = aligned_stop(stop, side)
    assert stop <= found <= min(stop + 3, side)
    assert (side - found) % 4 == 0


def test_means_of_squares_count_only_pixels_that_are_there():
    image = RNG.random((9, 6))
    found = box_mean(image, 2)
    for y, x in np.ndindex(image.shape):
        near = image[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
        assert found[y, x] == pytest.approx(near.mean(), rel=1e-12)
    assert (box_mean(np.zeros((5, 5)), 1) == 0).all()


def test_rounding_keeps_eight_bits_and_nan():
    values = np.array([0, 1, -3.14159, 1e-20, 123456, np.nan], np.float32)
    found = rounded(values)
    np.testing.assert_allclose(found, values, rtol=2**-8)
    assert (found[:-1].view(np.uint32) & 0xFFFF == 0).all()


def test_more_noise_in_one_half_is_seen_and_is_where_the_error_is(stack):
    """Real EM, made coarse, then made hard: strong noise in the right half only."""
    truth = tifffile.imread(stack)[24].astype(np.float32) / 255
    engine = TorchEngine(load_model("emsr-x3-small", device="cpu"))
    known = Trust(gain=0.0, offset=(4 / 255) ** 2, calibration=Calibration(0.0, 1.0, 1.0, ""))
    # whole pixels away from the step, which windows and receptive field smear
    left, right = (slice(None), slice(0, 72)), (slice(None), slice(120, 192))
    seen = {}
    for sigma in (2, 25):
        levels = np.where(np.arange(64) < 32, 2, sigma).astype(np.float32) / 255
        low = reduce(truth, 3)
        low += levels * np.random.default_rng(1).standard_normal(low.shape, dtype=np.float32)
        found = maps_of(known, lambda image: engine.run(image[None, None])[0, 0], low)
        found["residual"] = np.sqrt(box_mean(enlarged(found["residual"] ** 2), 4))
        found["true"] = np.sqrt(box_mean((engine.run(low[None, None])[0, 0] - truth) ** 2, 4))
        seen[sigma] = found
    for name in ("true", "disagreement", "residual", "error"):
        # worse than the other half, and than the same half without the noise
        assert seen[25][name][right].mean() > 1.2 * seen[25][name][left].mean()
        assert seen[25][name][right].mean() > 1.2 * seen[2][name][right].mean()
        assert spearman(seen[25][name].ravel(), seen[25]["true"].ravel()) > 0


def test_an_invented_structure_that_averages_out_is_not_seen_and_one_that_does_not_is():
    low = np.full((16, 16), 0.5, np.float32)
    ripple = np.zeros((3, 3), np.float32)
    ripple[1, 1], ripple[0, 0], ripple[2, 2], ripple[0, 2], ripple[2, 0] = 0.4, *[-0.1] * 4
    # the same in every flip and turn, and nothing after making it coarse: what no map can tell
    unseen = maps_of(QUIET, lambda image: enlarged(image) + np.tile(ripple, image.shape), low)
    assert unseen["disagreement"].max() < 1e-3
    assert np.abs(unseen["residual"]).max() < 1e-2
    brighter = maps_of(QUIET, lambda image: enlarged(image) + np.float32(0.1), low)
    np.testing.assert_allclose(brighter["residual"], 0.1 / 1e-4, rtol=1e-4)


def test_a_fit_finds_the_coefficients_that_made_the_errors():
    disagreement, residual = RNG.random((2, 200_000))
    true = (0.5, 3.0, 0.25)
    variance = true[0] + true[1] * disagreement**2 + true[2] * residual**2
    squared_error = variance * RNG.standard_normal(variance.size) ** 2
    found = fit(disagreement, residual, squared_error)
    np.testing.assert_allclose(found, true, atol=0.06)
    curve = calibration_curve(Calibration(*found, "").error(disagreement, residual), squared_error)
    assert sum(pixels for _, _, pixels in curve) == variance.size
    for expected, error, _ in curve:
        assert error == pytest.approx(expected, rel=0.05)
    # errors that shrink with disagreement, or noise larger than they are: no coefficient below 0
    assert min(fit(disagreement, residual, 1 - disagreement**2)) == 0
    assert fit(disagreement, residual, np.full_like(residual, -1.0)) == (0, 0, 0)


def test_rank_correlation_agrees_with_scipy():
    from scipy.stats import spearmanr

    one = RNG.integers(0, 20, 500)
    other = one + RNG.integers(0, 30, 500)
    assert spearman(one, other) == pytest.approx(spearmanr(one, other)[0], abs=1e-12)
    assert np.isnan(spearman(np.ones(5), np.arange(5)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text[:20], "cannot be read"),
        (lambda text: text.replace("floor", "flour"), "cannot be read"),
        (lambda text: json.dumps({**json.loads(text), "floor": -1}), "not all finite and 0 or more"),
        (lambda text: json.dumps({**json.loads(text), "model_sha256": "f" * 64}), "of other weights"),
    ],
)
def test_a_calibration_that_is_damaged_or_of_another_model_is_refused(tmp_path, change, words):
    path = tmp_path / "m.trust.json"
    good = json.dumps({"floor": 0.1, "gain_disagreement": 1, "gain_residual": 0, "model_sha256": "a" * 64})
    path.write_text(good)
    assert read_calibration(path, "a" * 64).floor == 0.1
    path.write_text(change(good))
    with pytest.raises(CheckpointError, match=words):
        read_calibration(path, "a" * 64)


def test_shipped_calibrations_are_of_the_shipped_weights():
    from emsr_fast import available_models
    from emsr_fast.infer.fingerprint import of_model
    from emsr_fast.model.zoo import model_path
    from emsr_fast.trust.calibration import calibration_path

    for name in available_models():
        sha256 = of_model(load_model(name, device="cpu")).sha256
        assert read_calibration(calibration_path(model_path(name)), sha256).gain_disagreement > 0


def test_noise_of_known_size_is_measured_and_too_little_to_measure_is_an_error():
    image = 0.5 + np.float32(10 / 255) * RNG.standard_normal((256, 256), dtype=np.float32)
    assert noise_of([image], "it").sigma == pytest.approx(10, rel=0.05)
    with pytest.raises(VolumeError, match=r"it has 4 blocks .* give larger images"):
        noise_of([image[:18, :18]], "it")
    with pytest.raises(VolumeError, match="it has 0 blocks"):
        noise_of([image[:1, :1]], "it")
    with pytest.raises(VolumeError, match="it has 0 blocks"):
        noise_of([], "it")

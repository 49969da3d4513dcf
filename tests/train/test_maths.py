"""Training: degradation, noise, losses, growth."""

import numpy as np
import pytest
import torch
from PIL import Image

from emsr_fast import EmsrConfig, UsageError, load_model
from emsr_fast.train.config import Degradation, Loss, Noise
from emsr_fast.train.degrade import add_noise, degrade, reduce
from emsr_fast.train.grow import grown
from emsr_fast.train.losses import reference_free_loss
from emsr_fast.train.noise import measure_noise


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("kind", ["area", "linear"])
def test_reduction_does_not_move_the_image(scale, kind):
    ramp = np.add.outer(np.arange(24 * scale), 2 * np.arange(20 * scale)).astype(np.float32)
    centre = (scale - 1) / 2
    expected = np.add.outer(np.arange(24) * scale + centre, 2 * (np.arange(20) * scale + centre))
    np.testing.assert_allclose(reduce(ramp, scale, kind), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("noise", "variance_at"),
    [
        (Noise(kind="gaussian", sigma=(10, 10)), lambda level: 100.0),
        (Noise(kind="poisson_gaussian", gain=(0.5, 0.5), offset=(9, 9)), lambda level: 0.5 * level + 9),
        (Noise(kind="local_variance", strength=0.01), lambda level: 0.01 * level * 255),
    ],
)
def test_noise_has_the_variance_asked_for_and_is_not_clipped(noise, variance_at):
    for level in (0, 100, 255):
        image = np.full((400, 400), level / 255, dtype=np.float32)
        noisy = add_noise(image, noise, np.random.default_rng(0)) * 255
        assert noisy.mean() == pytest.approx(level, abs=0.2)
        assert noisy.var() == pytest.approx(variance_at(level), rel=0.03, abs=1e-6)


@pytest.mark.parametrize(("gain", "offset"), [(0.0, 36.0), (0.8, 4.0)])
def test_measured_noise_is_the_noise_that_was_added(tmp_path, gain, offset):
    # smooth structure at all intensities
    y, x = np.mgrid[:600, :600] / 600
    clean = (0.5 + 0.35 * np.sin(7 * x + 3 * y) * np.cos(5 * y)).astype(np.float32)
    noise = Noise(kind="poisson_gaussian", gain=(gain, gain), offset=(offset, offset))
    noisy = add_noise(clean, noise, np.random.default_rng(1))
    Image.fromarray(np.rint(np.clip(noisy, 0, 1) * 255).astype(np.uint8)).save(tmp_path / "noisy.png")
    found = measure_noise([tmp_path / "noisy.png"])
    assert found.sigma == pytest.approx(np.sqrt(gain * 127.5 + offset), rel=0.08)
    assert found.gain == pytest.approx(gain, abs=0.12)


def test_losses_weigh_their_terms():
    y, noise = torch.rand(2, 1, 8, 8), 0.1 * torch.randn(2, 1, 8, 8)
    x = torch.rand(2, 1, 24, 24)

    def network(image):
        return torch.nn.functional.interpolate(image, scale_factor=3)

    fy, fn = network(y), network(y + noise)
    terms = [(fy - x).abs().mean(), (fn - x).abs().mean(), (fn - fy).abs().mean()]
    for weights in [(1, 1, 1), (1, 0, 0), (0.5, 2, 3)]:
        expected = sum(w * t for w, t in zip(weights, terms, strict=True))
        torch.testing.assert_close(reference_free_loss(network, y, x, noise, Loss(weights=weights)), expected)
    edged = reference_free_loss(network, y, x, noise, Loss(weights=(1, 0, 0), edges=1.0))
    assert edged > terms[0]


def test_stop_gradient_keeps_the_third_term_from_moving_the_clean_pass():
    gain = torch.nn.Parameter(torch.ones(()))
    y = torch.rand(1, 1, 4, 4)
    passes, gradients = [], []

    def network(image):
        passes.append(gain * torch.nn.functional.interpolate(image, scale_factor=3))
        return passes[-1]

    for stop in (True, False):
        gain.grad = None
        settings = Loss(kind="l2", weights=(1, 0, 1), stop_gradient=stop)
        reference_free_loss(network, y, torch.zeros(1, 1, 12, 12), torch.full_like(y, 0.1), settings).backward()
        gradients.append(gain.grad.clone())
    assert not torch.equal(*gradients)
    # both halves went through the network as one batch
    assert passes[0].shape == (2, 1, 12, 12)


def test_a_grown_network_starts_as_the_small_one():
    small, large = load_model("emsr-x3-small"), EmsrConfig()
    network = grown(small, large, torch.Generator().manual_seed(0)).eval()
    x = torch.rand(1, 1, 21, 24)
    with torch.no_grad():
        torch.testing.assert_close(network(x), small(x), rtol=1e-4, atol=1e-5)
    # and no two copies of a feature learn the same
    network(x).square().mean().backward()
    gradient = network.blocks[0].body[0].conv1.weight.grad
    assert (gradient[:32] - gradient[32:]).abs().max() > 1e-6 * gradient.abs().max()
    with pytest.raises(UsageError, match="cannot grow from"):
        grown(small, EmsrConfig(features=48, blocks=3, heads=16), torch.Generator())


def test_degradation_is_reproducible():
    hr = np.random.default_rng(0).random((48, 48), dtype=np.float32)
    settings = Degradation(blur_sigma_px=(0.2, 1), noise=Noise(sigma=(1, 9)))
    one, two = (degrade(hr, 3, settings, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert one.shape == (16, 16)

"""Figures of fidelity, each against its formula or a second implementation."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from emsr_fast import CheckpointError
from emsr_fast.metrics import (
    affine_coefficients,
    atrous_errors,
    gradient_error,
    ms_ssim_after_affine_fit,
    ssim_after_affine_fit,
)
from emsr_fast.metrics.perceptual import Lpips


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    reference = 128 + 60 * ndimage.gaussian_filter(rng.standard_normal((200, 180)), 3) * 10
    return 0.5 * reference + 30 + rng.standard_normal(reference.shape), reference


def test_the_fit_is_that_of_least_squares(pair):
    image, reference = pair
    assert affine_coefficients(image, reference) == pytest.approx(np.polyfit(image.ravel(), reference.ravel(), 1))
    assert affine_coefficients(np.full((4, 4), 3), np.arange(16.0).reshape(4, 4)) == (0.0, 7.5)


def ssim_maps(image, reference, data_range):
    """Return luminance times contrast-structure, and the latter alone, from the paper's formulas."""
    taps = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    taps /= taps.sum()

    def mean(x):
        return ndimage.correlate1d(ndimage.correlate1d(x, taps, 0), taps, 1)[5:-5, 5:-5]

    a, b = mean(image), mean(reference)
    var_a, var_b, cov = mean(image**2) - a**2, mean(reference**2) - b**2, mean(image * reference) - a * b
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    structure = (2 * cov + c2) / (var_a + var_b + c2)
    return (2 * a * b + c1) / (a**2 + b**2 + c1) * structure, structure


def test_structural_similarity_is_the_papers(pair):
    image, reference = pair
    gain, offset = affine_coefficients(image, reference)
    fitted = gain * image + offset
    assert ssim_after_affine_fit(image, reference, 255) == pytest.approx(
        ssim_maps(fitted, reference, 255)[0].mean(), abs=1e-6
    )
    product, weights = 1.0, (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
    a, b = fitted, reference
    for scale, weight in enumerate(weights):
        whole, structure = ssim_maps(a, b, 255)
        product *= (whole if scale == 4 else structure).mean() ** weight
        a, b = (x[: x.shape[0] // 2 * 2, : x.shape[1] // 2 * 2] for x in (a, b))
        a, b = ((x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4 for x in (a, b))
    # torchmetrics keeps a margin of five mirrored pixels less than this at some scales
    assert ms_ssim_after_affine_fit(image, reference, 255) == pytest.approx(product, abs=2e-3)


def test_equal_images_are_perfect_and_small_ones_are_left_out(pair):
    _, reference = pair
    assert ssim_after_affine_fit(3 * reference - 9, reference, 255) == pytest.approx(1)
    assert ms_ssim_after_affine_fit(3 * reference - 9, reference, 255) == pytest.approx(1)
    assert gradient_error(3 * reference - 9, reference) == pytest.approx(0, abs=1e-9)
    assert atrous_errors(3 * reference - 9, reference) == pytest.approx([0, 0, 0], abs=1e-9)
    assert ssim_after_affine_fit(reference[:10], reference[:10], 255) is None
    assert ms_ssim_after_affine_fit(reference[:160], reference[:160], 255) is None


def test_a_flat_image_has_all_slopes_and_details_wrong(pair):
    _, reference = pair
    assert gradient_error(np.full_like(reference, 9), reference) == pytest.approx(1)
    assert atrous_errors(np.full_like(reference, 9), reference) == pytest.approx([1, 1, 1])


def test_blur_costs_fine_details_first(pair):
    _, reference = pair
    # coarse structure holds the gain of the fit near 1
    reference = reference + np.random.default_rng(1).standard_normal(reference.shape)
    errors = atrous_errors(ndimage.gaussian_filter(reference, 1.0), reference)
    assert errors[0] > errors[1] > errors[2]


@pytest.fixture
def alexnet(tmp_path):
    """Random weights under torchvision's names, and the network itself as torchvision lays it out."""
    torch.manual_seed(0)
    sizes = ((3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1))
    layers = []
    for number, (inner, outer, side, stride, padding) in enumerate(sizes):
        layers += [torch.nn.Conv2d(inner, outer, side, stride, padding), torch.nn.ReLU()]
        if number in (0, 1, 4):
            layers.append(torch.nn.MaxPool2d(3, 2))
    network = torch.nn.Sequential(*layers)
    torch.save({f"features.{name}": value for name, value in network.state_dict().items()}, tmp_path / "alexnet.pth")
    return network, tmp_path / "alexnet.pth"


def test_lpips_is_that_of_torchmetrics(pair, alexnet, monkeypatch):
    """torchmetrics has LPIPS for those who have torchvision; here it is given the network itself."""
    from torchmetrics.functional.image import lpips as theirs

    network, path = alexnet
    monkeypatch.setattr(theirs, "_get_tv_model_features", lambda net, pretrained: network)
    image, reference = pair
    gain, offset = affine_coefficients(image, reference)
    as_colours = [
        torch.from_numpy(x / 255).float()[None, None].repeat(1, 3, 1, 1) for x in (gain * image + offset, reference)
    ]
    expected = float(theirs._LPIPS(pretrained=True, net="alex")(*as_colours, normalize=True))
    ours = Lpips(path)
    assert ours(image, reference, 0, 255) == pytest.approx(expected, rel=1e-4)
    assert expected > 0
    assert ours(2 * reference + 1, reference, 0, 255) == pytest.approx(0, abs=1e-6)
    assert ours(image[:60], reference[:60], 0, 255) is None


def test_weights_that_are_none_are_refused(tmp_path):
    (tmp_path / "text.pth").write_text("no weights")
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    for name, words in (
        ("text.pth", "cannot be read"),
        ("missing.pth", "cannot be read"),
        ("other.pth", "is not AlexNet"),
        ("list.pth", "no tensors by name"),
    ):
        with pytest.raises(CheckpointError, match=words):
            Lpips(tmp_path / name)

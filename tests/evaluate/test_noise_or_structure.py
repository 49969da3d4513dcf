"""Noise measured on one image: what is noise, what may be structure, and saying so where nobody can tell."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emsr_fast.cli import main
from emsr_fast.errors import VolumeError
from emsr_fast.metrics.noise import noise_of
from emsr_fast.train.noise import measure_noise

REAL = Path(__file__).parents[3] / "shared" / "data" / "train"


def noise(shape, sigma, seed=0):
    return np.random.default_rng(seed).normal(0, sigma / 255, shape)


def textured(shape, sigma):
    """Structure of single pixels everywhere, of a strength that differs from place to place, and noise."""
    cells = np.clip(np.random.default_rng(2).normal(1, 0.3, [side // 20 for side in shape]), 0.05, None)
    return 0.5 + cells.repeat(20, 0).repeat(20, 1) * noise(shape, 12, seed=1) + noise(shape, sigma)


@pytest.mark.parametrize("sigma", [2, 10, 25])
@pytest.mark.parametrize("side", [160, 700])
def test_white_noise_is_known_whatever_its_strength_and_the_size_of_the_image(side, sigma):
    found = noise_of([0.5 + noise((side, side), sigma)], "it")
    assert found.is_known
    assert found.sigma == pytest.approx(sigma, rel=0.05)
    assert found.few == pytest.approx(sigma, rel=0.05)


def test_noise_that_grows_with_intensity_is_no_structure():
    ramp = np.broadcast_to(np.linspace(0.1, 0.9, 600), (600, 600))
    found = noise_of([ramp + np.sqrt(ramp) * noise(ramp.shape, 12)], "it")
    assert found.is_known
    assert found.gain == pytest.approx(12**2 / 255, rel=0.1)


@pytest.mark.parametrize(("flat", "too_high"), [(300, 0.1), (60, 0.25)])
def test_structure_does_not_count_where_part_of_the_image_is_flat(tmp_path, flat, too_high):
    image = textured((600, 600), 5)
    image[:, :flat] = 0.5 + noise((600, flat), 5)
    Image.fromarray(np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)).save(tmp_path / "in.png")
    # the flattest 2 % of all are of the flat part's flattest 4 and 20 %
    assert 5 <= measure_noise([tmp_path / "in.png"]).sigma <= 5 * (1 + too_high)


def test_structure_of_single_pixels_everywhere_is_not_called_noise(tmp_path, capsys):
    image = np.rint(255 * np.clip(textured((600, 600), 2), 0, 1)).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "texture.png")
    found = noise_of([image / 255], "it")
    assert not found.is_known
    assert 2 < found.very_few < found.few < found.sigma
    with pytest.raises(VolumeError, match=r"texture\.png cannot be told from its structure"):
        measure_noise([tmp_path / "texture.png"])
    assert main(["noise", str(tmp_path / "texture.png")]) == 3
    assert "empty parts" in capsys.readouterr().err


@pytest.mark.skipif(not REAL.is_dir(), reason="the real images lie beside the checkout, and are not there")
@pytest.mark.parametrize(
    ("pattern", "sigma"),
    [("rat_ssem_8nm/*00*", 16.6), ("flyem_fibsem_10nm_block/*", 3.7), ("vnc_larva_sstem_4.6nm/*", 5)],
)
def test_real_images_of_known_noise(pattern, sigma):
    files = sorted(REAL.glob(f"{pattern}.png"))[::12]
    found = measure_noise(files)
    assert found.sigma == pytest.approx(sigma, rel=0.2)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real images lie beside the checkout, and are not there")
def test_a_real_scan_binned_by_three_has_a_third_of_its_noise_though_it_is_textured(tmp_path):
    # the scans' own is 12 to 13 and white
    for file in sorted((REAL / "mussel_repeat_scan_pairs").rglob("*_A.png"))[:20]:
        binned = np.asarray(Image.open(file).convert("L")).reshape(48, 3, 48, 3).mean(axis=(1, 3))
        Image.fromarray(np.rint(binned).astype(np.uint8)).save(tmp_path / file.name)
    assert measure_noise([tmp_path]).sigma == pytest.approx(12.5 / 3, rel=0.2)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real images lie beside the checkout, and are not there")
def test_vnc_at_13_8_nm_is_structure_everywhere():
    files = sorted((REAL / "vnc_larva_sstem_4.6nm").glob("*.png"))[::12]
    images = (np.asarray(Image.open(file).convert("L"))[:1023, :1023] / 255 for file in files)
    assert not noise_of([image.reshape(341, 3, 341, 3).mean(axis=(1, 3)) for image in images], "vnc").is_known

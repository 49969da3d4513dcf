"""Training: settings, pairs, degradation, noise, losses, growth."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import yaml
from PIL import Image

from emsr_fast import EmsrConfig, UsageError, VolumeError, load_model
from emsr_fast.cli import main
from emsr_fast.cli.training import changes_of
from emsr_fast.train import TrainConfig, read_config, train
from emsr_fast.train.config import Degradation, Loss, Noise, Source
from emsr_fast.train.dataset import Crops, Numbers, crop_of
from emsr_fast.train.degrade import add_noise, degrade, reduce
from emsr_fast.train.grow import grown
from emsr_fast.train.losses import reference_free_loss
from emsr_fast.train.noise import measure_noise
from emsr_fast.train.pairs import Pair, TrainingVolume, pairs_of


def test_defaults_are_the_papers():
    config = TrainConfig(sources=[Source(hr=Path("x"))])
    assert config.architecture == EmsrConfig()
    assert (config.loss.weights, config.loss.extra_sigma) == ((1, 1, 1), (0, 5))
    assert not config.loss.stop_gradient
    assert (config.optimiser.kind, config.optimiser.rate) == ("adam", 1e-4)
    assert (config.optimiser.schedule, config.optimiser.halve_every) == ("halving", 50_000)
    assert (config.batch, config.extra_lr_sigma) == (2, (0, 5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("batsh=3", "batsh: Extra inputs are not permitted, got 3"),
        ("loss.kind=l3", "loss.kind: Input should be 'l1', 'l2' or 'charbonnier', got 'l3'"),
        ("crop=30", "crop: Input should be a multiple of 4, got 30"),
        ("model.width=3", "model: unknown 'width'"),
        ("model.features=30", "model: heads must divide features"),
        ("optimiser.rate=-1", "optimiser.rate: Input should be greater than 0"),
        ("sources.0.rows=x", "is 'x'; give a:b"),
        ("sources.4.rows=1:2", "'4' is none of the 1 entries"),
        ("loss", "give key=value"),
        ("loss.weights=[0, 0, 1]", "the first or second above 0"),
        ("sources.0.degradation.noise.sigma=[5, 1]", "from low to high"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path, small_run, change, message):
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(small_run))
    with pytest.raises(UsageError, match=message):
        train(read_config(path, [change]), say=lambda line: None)


def test_settings_from_file_and_command_line(tmp_path, small_run, monkeypatch):
    monkeypatch.setenv("DATA_HOME", "elsewhere")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**small_run, "sources": [{"hr": "$DATA_HOME/x.tif"}]}))
    config = read_config(tmp_path / "c.yaml", ["optimiser.rate=2e-4", "loss.kind=l2", "sources.0.weight=2"])
    assert config.optimiser.rate == 2e-4
    assert config.loss.kind == "l2"
    assert config.sources[0].hr == tmp_path / "elsewhere" / "x.tif"
    assert config.sources[0].weight == 2


def test_the_commented_settings_are_the_defaults(tmp_path):
    assert main(["train", str(tmp_path / "c.yaml"), "--init"]) == 0
    written = read_config(tmp_path / "c.yaml")
    defaults = TrainConfig(sources=[Source(hr=tmp_path / "HR")], output=tmp_path / "run")
    assert written.model_copy(update={"model": {}}) == defaults
    assert written.architecture == defaults.architecture
    assert main(["train", str(tmp_path / "c.yaml"), "--init"]) == 3


def test_the_command_line_reads_settings():
    assert changes_of(["--optimiser.rate=1e-3", "--crop", "32"]) == ["optimiser.rate=1e-3", "crop=32"]
    for wrong in (["crop=3"], ["--crop"], ["--"]):
        with pytest.raises(UsageError, match="give --"):
            changes_of(wrong)


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
    assert [p.z for p in training] == list(range(30))
    assert [p.z for p in validation] == list(range(30, 47))
    assert all(p.reference_z == p.z + 1 for p in (*training, *validation))
    by_rows = Source(hr=stack, rows=":96", validation_rows="120:")
    training, validation = pairs_of(by_rows, 3, 16, Path())
    assert {p.rows for p in training} == {(0, 96)}
    assert {p.rows for p in validation} == {(120, 192)}


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
    rng = np.random.default_rng(0)
    hr = np.clip(rng.normal(128, 40, (96, 96)), 0, 255).astype(np.uint8)
    lr = np.clip(rng.normal(128, 40, (32, 32)), 0, 255).astype(np.uint8)
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
    (tmp_path / "pairs.csv").write_text("lr,hr\ns0_A.png,s0_B.png\ns1_A.png,s1_B.png\n")
    listed = Source(strategy="real", pairs=tmp_path / "pairs.csv")
    ended = Source(strategy="real", hr=tmp_path, pattern=("_A.png", "_B.png"))
    names = [
        [(p.origin.path.name, p.reference.path.name) for p in pairs_of(s, 3, 16, Path())[0]] for s in (listed, ended)
    ]
    assert names[0] == names[1] == [("s0_A.png", "s0_B.png"), ("s1_A.png", "s1_B.png")]
    (tmp_path / "s1_A.png").unlink()
    with pytest.raises(VolumeError, match="'s1' has no partner"):
        pairs_of(ended, 3, 16, Path())
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
    # in the grey values of its source, whatever its own range
    np.testing.assert_array_equal(training[0].reference.crop(0, slice(0, 9), slice(0, 9)), clean[:9, :9])


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

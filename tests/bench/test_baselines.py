"""The networks that ours are compared with: they train in our loop, and are what their papers say."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from emsr_fast.train import TrainConfig, train

BENCH = Path(__file__).parents[2] / "bench"


def module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


networks = module(BENCH / "measure" / "baselines" / "networks.py")


@pytest.mark.parametrize("name", ["edsr", "rcan", "swin2sr"])
def test_a_baseline_trains_in_our_loop_and_comes_back(small_run, tmp_path, name):
    if name == "swin2sr":
        pytest.importorskip("transformers")  # large, and needed by this table only
    settings = {**small_run, "output": str(tmp_path / name), "steps": 4}
    torch.manual_seed(0)
    network = networks.BASELINES[name]()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    outcome = train(TrainConfig.model_validate(settings), network=network, say=lambda line: None)
    assert outcome.steps == 4
    again = networks.load_baseline(outcome.model)
    assert all((again.state_dict()[key] != value).any() for key, value in before.items())
    with torch.no_grad():
        assert again(torch.rand(2, 1, 9, 14)).shape == (2, 1, 27, 42)
    # a resumed run starts from what was learnt, whatever network it is given
    resumed = train(
        TrainConfig.model_validate({**settings, "steps": 5}),
        network=networks.BASELINES[name](),
        resume=True,
        say=lambda line: None,
    )
    assert resumed.steps == 5


def test_rcan_weighs_whole_channels():
    attention = networks.ChannelAttention(32)
    x = torch.rand(1, 32, 6, 7)
    ratio = (attention(x) / x).detach()
    torch.testing.assert_close(ratio.amax(dim=(2, 3)), ratio.amin(dim=(2, 3)))
    assert 0 < ratio.min() < ratio.max() < 1


def test_the_table_knows_interpolations_that_need_no_training(monkeypatch):
    # the script finds its neighbour by itself
    monkeypatch.setattr(sys, "path", list(sys.path))
    measure = module(BENCH / "measure" / "quality.py")
    rng = np.random.default_rng(0)
    low = np.add.outer(np.arange(40.0), np.arange(50.0)).astype(np.float32) + 80
    noisy = low + 10 * rng.standard_normal(low.shape, dtype=np.float32)
    large = {name: method(noisy) for name, method in measure.BASELINES.items()}
    assert all(image.shape == (120, 150) for image in large.values())
    assert (large["nearest"][::3, ::3] == noisy).all()
    truth = measure.BASELINES["bicubic"](low)
    errors = {name: float(np.abs(image - truth)[9:-9, 9:-9].mean()) for name, image in large.items()}
    assert errors["denoised, bicubic"] < 0.7 * errors["bicubic"] < errors["nearest"]

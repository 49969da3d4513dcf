"""The script that averages the weights of two stages of a training."""

import subprocess
import sys
from pathlib import Path

import torch

from emsr_fast import Emsr, EmsrConfig, ModelCard, load_model, save_model

SCRIPT = Path(__file__).parents[2] / "bench" / "measure" / "average_weights.py"


def test_the_mean_of_two_models_is_written_and_says_so(tmp_path):
    config = EmsrConfig(features=16, blocks=1, heads=4)
    paths = [tmp_path / f"{name}.safetensors" for name in ("earlier", "later", "mean")]
    for seed, path in enumerate(paths[:2]):
        torch.manual_seed(seed)
        save_model(Emsr(config, ModelCard.for_config(config, name="m", training={"steps": 10 * (seed + 1)})), path)
    subprocess.run([sys.executable, SCRIPT, *paths[:2], "0.75", paths[2]], check=True)
    earlier, later, mean = (load_model(path, device="cpu") for path in paths)
    for name, value in mean.state_dict().items():
        torch.testing.assert_close(value, 0.25 * earlier.state_dict()[name] + 0.75 * later.state_dict()[name])
    assert mean.card.training == {"steps": 20, "averaged_with_stage": {"steps": 10, "share": 0.25}}

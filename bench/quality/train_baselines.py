"""Train EDSR, RCAN and EMSR alike: the data, crops, noise and number of steps of the shipped model's settings.

Usage: EMSR_DATA=folder python bench/quality/train_baselines.py RUN_FOLDER [STEPS]

Ctrl-C leaves states that the next call goes on from. Then: EMSR_DATA=folder python bench/measure_quality.py RUN_FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from networks import BASELINES, parameters

from emsr_fast.train import read_config, train
from emsr_fast.train.start import first_network

SETTINGS = Path(__file__).parents[2] / "examples" / "weights" / "emsr-x3-small.yaml"
STEPS = 200


def main() -> int:
    folder = Path(sys.argv[1]).resolve()
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else STEPS
    for name in ("emsr", *BASELINES):
        changes = [f"output={folder / name}", f"name={name}", f"steps={steps}", "optimiser.warm_up=20"]
        # the average of a short run looks back over less of it
        changes += ["optimiser.ema=0.99", f"validate_every={steps}", "checkpoint_minutes=1"]
        config = read_config(SETTINGS, changes)
        torch.manual_seed(config.seed)
        network = BASELINES[name]() if name in BASELINES else first_network(config)
        resume = (folder / name / "last.pt").exists()
        print(f"{name}: {parameters(network):,} parameters", file=sys.stderr, flush=True)
        outcome = train(config, resume=resume, network=network, say=lambda line: print(line, file=sys.stderr))
        if outcome.stopped_by is not None:
            return 128 + outcome.stopped_by
        print(f"{name}: {outcome.steps} steps, {outcome.seconds:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Train small EDSR, RCAN and Swin2SR as emsr-x3-small was: its data, crops, noise, loss, optimiser and number of steps.

Usage: EMSR_DATA=folder python bench/measure/baselines/train_baselines.py RUN_FOLDER [STEPS]

A quarter of an hour each on a quiet core; Swin2SR (`pip install transformers`) takes four times as long a step, and so
gets a third of the steps. Ctrl-C leaves states that the next call goes on from. With other STEPS, train
EMSR anew as well: emsr-fast train examples/weights/emsr-x3-small-1.yaml --steps=STEPS --output=RUN_FOLDER/emsr.
Then: EMSR_DATA=folder python bench/measure/quality.py emsr-x3-small RUN_FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from emsr_fast.train import read_config, train
from networks import BASELINES, parameters

SHORTER = {"swin2sr": 3}  # a step takes longer; the budget is one of time as well
SETTINGS = Path(__file__).parents[3] / "examples" / "weights" / "emsr-x3-small-1.yaml"


def main() -> int:
    folder = Path(sys.argv[1]).resolve()
    for name, build in BASELINES.items():
        config = read_config(SETTINGS, [f"output={folder / name}", f"name={name}"])
        steps = int(sys.argv[2]) if len(sys.argv) > 2 else config.steps
        config = config.model_copy(update={"steps": steps // SHORTER.get(name, 1)})
        torch.manual_seed(config.seed)
        network = build()
        resume = (folder / name / "last.pt").exists()
        print(f"{name}: {parameters(network):,} parameters", file=sys.stderr, flush=True)
        outcome = train(config, resume=resume, network=network, say=lambda line: print(line, file=sys.stderr))
        if outcome.stopped_by is not None:
            return 128 + outcome.stopped_by
        print(f"{name}: {outcome.steps} steps, {outcome.seconds:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

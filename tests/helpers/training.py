"""Training runs of seconds, and what they leave."""

import csv
from pathlib import Path

from emsr_fast import load_model
from emsr_fast.train import TrainConfig, train


def run(settings, *, resume=False, **changes):
    config = TrainConfig.model_validate({**settings, **changes})
    return train(config, resume=resume, say=lambda line: None)


def weights(path):
    return load_model(path).state_dict()


def column(folder, name):
    with (Path(folder) / "log.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file)]

"""Training: settings, from file, template and command line."""

import re
from pathlib import Path

import pytest
import torch
import yaml

from emsr_fast import EmsrConfig, UsageError
from emsr_fast.cli import main
from emsr_fast.cli.train import changes_of
from emsr_fast.train import TrainConfig, read_config, template, train
from emsr_fast.train.config import Degradation, Loss, Noise, Optimiser, Source


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
        ("extra_lr_sigma=[5, 1]", "from low to high"),
        ("loss.extra_sigma=[0, .inf]", "from low to high"),
        ("loss.weights=[1,0", "is not a value"),
        ("seed=-1", "seed: Input should be greater than or equal to 0"),
        ("sources=3", "sources: Input should be a valid list"),
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


def test_the_template_fits_a_laptop_and_names_every_setting(tmp_path):
    assert main(["train", str(tmp_path / "c.yaml"), "--init"]) == 0
    written = read_config(tmp_path / "c.yaml")
    assert (written.start_from, written.model) == ("emsr-x3-small", {})
    assert written.minutes <= 60
    assert written.batch * written.crop**2 <= (8 * 48**2 if not torch.cuda.is_available() else 16 * 96**2)
    assert written.sources[0].validation_share
    text = (tmp_path / "c.yaml").read_text()
    for group in (TrainConfig, Source, Degradation, Noise, Loss, Optimiser):
        for name in group.model_fields:
            assert re.search(rf"\b{name}\b", text), f"{group.__name__}.{name}"
    assert main(["train", str(tmp_path / "c.yaml"), "--init"]) == 3


def test_the_batch_of_the_template_is_smaller_where_there_is_little_memory(monkeypatch):
    found = []
    for free in (None, 24e9, 1e9, 1e6):
        monkeypatch.setattr(template, "free_bytes", lambda device, free=free: None if free is None else int(free))
        written = yaml.safe_load(template.template(torch.device("cpu")))
        found.append((written["crop"], written["batch"]))
    assert found == [(48, 8), (48, 8), (48, 3), (48, 1)]


def test_the_templates_brackets_hold_the_papers_values(tmp_path):
    main(["train", str(tmp_path / "c.yaml"), "--init"])
    defaults = TrainConfig(sources=[Source(hr=tmp_path / "HR")])
    groups, seen = {"": defaults, "loss": defaults.loss, "optimiser": defaults.optimiser}, 0
    group = ""
    for line in (tmp_path / "c.yaml").read_text().splitlines():
        if found := re.match(r"(\w+):(?: *#.*)?$", line):
            group = found[1]
        key = re.match(r"( *)(\w+): ", line)
        paper = re.search(r"# .*\[([^]]*)\](?:, twice the time)?$", line)
        if key and paper:
            owner = groups[group if key[1] else ""]
            value = paper[1].split(";")[0]
            given = yaml.safe_load(f"[{value}]" if isinstance(getattr(owner, key[2]), tuple) else value)
            expected = getattr(owner, key[2])
            assert (None if given == "none" else tuple(given) if isinstance(given, list) else given) == expected, line
            seen += 1
    assert seen >= 15


def test_the_command_line_reads_settings():
    assert changes_of(["--optimiser.rate=1e-3", "--crop", "32"]) == ["optimiser.rate=1e-3", "crop=32"]
    for wrong in (["crop=3"], ["--crop"], ["--"]):
        with pytest.raises(UsageError, match="give --"):
            changes_of(wrong)

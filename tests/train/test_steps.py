"""Training: stops inside a step, passes, what a run costs and starts from."""

import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from emsr_fast import BackendError, Emsr, EmsrConfig, UsageError, load_model
from emsr_fast.cli import main
from emsr_fast.train import TrainConfig, train
from emsr_fast.train.cost import measure_cost, say_cost
from emsr_fast.train.dataset import Crops, readable
from emsr_fast.train.pairs import pairs_of
from emsr_fast.train.state import TrainState
from emsr_fast.train.step import crops_per_pass
from training import column, run, weights


@pytest.mark.parametrize("place", ["forward", "backward"])
def test_a_stop_inside_a_step_drops_that_step(small_run, tmp_path, monkeypatch, place):
    run(small_run, optimiser={"rate": 1e-3, "schedule": "constant"})
    part = {**small_run, "output": str(tmp_path / "part"), "optimiser": {"rate": 1e-3, "schedule": "constant"}}
    kept, real = [], torch.autograd.graph.saved_tensors_hooks

    class StopsInTheThirdStep(real):
        def __init__(self, pack, unpack):
            kept.append(self)
            calls = []

            def act(hook):
                def hooked(tensor):
                    calls.append(1)
                    if len(kept) == 5 and len(calls) == 10:  # two more were for the measurement
                        os.kill(os.getpid(), signal.SIGINT)
                    return hook(tensor)

                return hooked

            super().__init__(act(pack) if place == "forward" else pack, act(unpack) if place == "backward" else unpack)

    monkeypatch.setattr(torch.autograd.graph, "saved_tensors_hooks", StopsInTheThirdStep)
    stopped = run(part)
    monkeypatch.undo()
    assert (stopped.steps, stopped.stopped_by) == (2, signal.SIGINT)
    run(part, resume=True)
    undisturbed, resumed = (weights(Path(s["output"]) / "last.safetensors") for s in (small_run, part))
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in undisturbed.items())


def test_minutes_end_a_run_inside_a_step(small_run, monkeypatch):
    real, kept = torch.autograd.graph.saved_tensors_hooks, []

    class SlowSteps(real):
        def __init__(self, pack, unpack):
            kept.append(0)
            # two were for the measurement
            seconds = 0.1 if len(kept) > 2 else 0

            def late(tensor):
                kept[-1] += 1
                time.sleep(seconds)
                return pack(tensor)

            super().__init__(late, unpack)

    monkeypatch.setattr(torch.autograd.graph, "saved_tensors_hooks", SlowSteps)
    outcome = run(small_run, minutes=0.5 / 60)
    assert (outcome.steps, outcome.stopped_by) == (0, None)
    assert outcome.seconds >= 0.5
    # one operator after the time is up, not one step
    assert len(kept) == 3
    assert kept[2] <= 6 < kept[0]


def test_a_run_that_has_used_its_time_says_what_to_do(small_run):
    run(small_run, steps=2)
    with pytest.raises(UsageError, match=r"has done its 2 steps.*`resume`, with `steps=4`.*last\.safetensors"):
        run(small_run, steps=2, resume=True)
    with pytest.raises(UsageError, match=r"has used its 1e-05 minutes \(2 steps\).*`resume`, with `minutes=2e-05`"):
        run(small_run, resume=True, minutes=1e-5)


def test_what_stands_in_the_way_of_a_run_is_said_before_the_data_are_read(small_run, monkeypatch):
    run(small_run, steps=2)

    def read_nothing(*arguments):
        raise AssertionError("the data were read")

    monkeypatch.setattr("emsr_fast.train.loop.pairs_of", read_nothing)
    with pytest.raises(UsageError, match="holds a run"):
        run(small_run, steps=2)
    with pytest.raises(UsageError, match="has done its 2 steps"):
        run(small_run, steps=2, resume=True)
    with pytest.raises(UsageError, match="does not exist; start without"):
        run({**small_run, "output": small_run["output"] + "2"}, resume=True)


def test_progress_counts_what_ends_the_run(small_run, tmp_path):
    lines = []
    train(TrainConfig.model_validate({**small_run, "steps": 10**6, "minutes": 0.02}), say=lines.append)
    said = [line for line in lines if line.startswith("step ") and "loss" in line]
    # a total of steps would be a guess
    assert re.match(r"step 1, 0:0\d of 0:01, loss ", said[0]), said
    lines = []
    settings = {**small_run, "output": str(tmp_path / "steps"), "steps": 2, "minutes": 600}
    train(TrainConfig.model_validate(settings), say=lines.append)
    said = [line for line in lines if line.startswith("step ") and "loss" in line]
    assert [line.split(",")[0] for line in said] == ["step 1/2", "step 2/2"]


def test_a_file_of_settings_that_is_not_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train"]) == 3
    assert "train.yaml does not exist; write an example: emsr-fast train train.yaml --init" in capsys.readouterr().err


def test_passes_are_of_one_size(small_run):
    cpu = torch.device("cpu")
    for crop, batch, expected in ((48, 8, 8), (48, 16, 8), (64, 9, 5), (340, 2, 1), (32, 4, 4)):
        config = TrainConfig.model_validate({**small_run, "crop": crop, "batch": batch})
        assert crops_per_pass(config, 1, cpu) == expected


def test_the_next_batch_is_prepared_while_one_is_in_use():
    asked, used = [threading.Event() for _ in range(4)], []

    class Numbers(Dataset):
        def __getitem__(self, number):
            asked[number].set()
            return number

        def __len__(self):
            return len(asked)

    for batch in readable(DataLoader(Numbers(), batch_size=1)):
        used.append(int(batch))
        assert asked[min(used[-1] + 1, 3)].wait(60)
    assert used == [0, 1, 2, 3]


def test_passes_add_up_to_the_batch(small_run, tmp_path, monkeypatch):
    run(small_run, batch=4)
    monkeypatch.setattr("emsr_fast.train.step._PASS_PX", 3 * 16**2)
    run({**small_run, "output": str(tmp_path / "passes")}, batch=4)
    for name in ("loss", "gradient_norm"):
        assert column(tmp_path / "passes", name) == pytest.approx(column(small_run["output"], name), rel=1e-4)


def test_the_cost_is_said_before_the_first_step_and_changes_nothing(small_run, tmp_path, monkeypatch):
    lines = []
    train(TrainConfig.model_validate({**small_run, "steps": 10**6, "minutes": 0.02}), say=lines.append)
    (step,) = (n for n, line in enumerate(lines) if line.startswith("step    about"))
    assert re.search(r"about .+ s, \S+ LR Mpx/s, \S+ GB on cpu", lines[step])
    assert "GB are free" in lines[step]
    assert lines[step + 1].startswith("run     about ")
    assert re.search(r"steps? in 1\.2 s$", lines[step + 1])
    monkeypatch.setattr("emsr_fast.train.cost.free_bytes", lambda device: 1000)
    with pytest.raises(BackendError, match="are free; give a smaller `model`"):
        run({**small_run, "output": str(tmp_path / "b")})


def test_a_run_of_weeks_is_announced(small_run, stack):
    network = Emsr(EmsrConfig(features=16, blocks=1, heads=4))
    config = TrainConfig.model_validate({**small_run, "crop": 64, "batch": 64, "steps": 10**9})
    pairs, _ = pairs_of(config.sources[0], 3, 64, Path())
    state, cpu = TrainState.fresh(network, config), torch.device("cpu")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    start = time.monotonic()
    cost = measure_cost(state, config, Crops([(1.0, pairs)], config, 3), 1, cpu)
    # one crop is measured, not 64
    assert time.monotonic() - start < cost.seconds
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    lines = []
    say_cost(cost, config, 0, 0.0, cpu, lines.append)
    assert "days" in lines[1]
    assert lines[2].startswith("note    to be done sooner: `minutes`")


def test_a_run_keeps_the_size_of_what_it_starts_from(small_run, tmp_path):
    run(small_run, steps=1)
    start = str(Path(small_run["output"]) / "last.safetensors")
    for number, (model, words, features) in enumerate(
        (
            ({}, "at its own size: 16 features", 16),
            ({"scale": 3}, "at its own size: 16 features", 16),
            ({"features": 32, "heads": 8}, "16 features, 1 block, .*; grown, as model says, to 32 features", 32),
        )
    ):
        lines = []
        again = {**small_run, "output": str(tmp_path / f"again{number}"), "start_from": start, "model": model}
        outcome = train(TrainConfig.model_validate({**again, "steps": 1}), say=lines.append)
        assert re.search(words, "\n".join(lines))
        assert load_model(outcome.model).config.features == features
    with pytest.raises(UsageError, match="does not fit"):
        run({**again, "output": str(tmp_path / "other"), "model": {"heads": 32}})


def test_a_card_holds_names_and_no_places(small_run, tmp_path):
    outcome = run(small_run, steps=1)
    card = load_model(outcome.model).card
    assert card.training["sources"][0]["hr"] == "flyem_fibsem_10nm_48x192x192.tif"
    assert "/" not in card.model_dump_json()

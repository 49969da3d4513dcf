"""Training: the loop, resuming, several processes, and everything that can stop it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import yaml
from PIL import Image

from emsr_fast import CheckpointError, UsageError, VolumeError, load_model
from emsr_fast.train import TrainConfig, read_config
from emsr_fast.train.pairs import pairs_of
from emsr_fast.train.validate import validate, validation_crops
from emsr_fast.train.volumes import TrainingVolume
from training import column, run, weights


def test_a_run_leaves_model_log_pictures_and_settings(small_run):
    outcome = run(small_run)
    folder = Path(small_run["output"])
    assert outcome.steps == 6
    assert column(folder, "step") == [1, 2, 3, 4, 5, 6]
    assert sorted(p.name for p in (folder / "sheets").iterdir()) == ["step_0000003.png", "step_0000006.png"]
    assert read_config(folder / "config.yaml").steps == 6
    model = load_model(folder / "best.safetensors")
    assert model.card.training["steps"] in (3, 6)
    assert model.card.metrics["validation"]["bicubic_psnr_db"] == outcome.validation.bicubic_psnr_db
    with torch.no_grad():
        assert model(torch.rand(1, 1, 8, 8)).shape == (1, 1, 24, 24)


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_resuming_is_bit_for_bit(small_run, tmp_path, kind):
    changes = {"optimiser": {**small_run["optimiser"], "kind": kind, "schedule": "cosine", "warm_up": 2}}
    run(small_run, **changes)
    part = {**small_run, **changes, "output": str(tmp_path / "part")}
    # stopped in the middle, as by Ctrl-C: the schedule still aims at six steps
    calls = []
    real = TrainingVolume.crop

    def stop_at_the_fifth_step(self, *args):
        calls.append(1)
        if len(calls) == 2 * 2 * 4 + 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, *args)

    TrainingVolume.crop = stop_at_the_fifth_step
    try:
        stopped = run(part)
    finally:
        TrainingVolume.crop = real
    assert stopped.stopped_by == signal.SIGTERM
    assert 0 < stopped.steps < 6
    run(part, resume=True)
    undisturbed, resumed = (weights(Path(s["output"]) / "last.safetensors") for s in (small_run, part))
    for name, tensor in undisturbed.items():
        assert torch.equal(tensor, resumed[name]), name


def test_workers_change_nothing(small_run, tmp_path, stack):
    # compressed, and more slices than are looked at before training: the workers must read for themselves
    pixels = np.concatenate([tifffile.imread(stack)] * 3)
    tifffile.imwrite(tmp_path / "x.tif", pixels, photometric="minisblack", compression="zlib")
    small_run["sources"] = [{"hr": str(tmp_path / "x.tif")}]
    run(small_run, steps=12)
    run({**small_run, "output": str(tmp_path / "workers")}, steps=12, workers=4)
    a, b = weights(Path(small_run["output"]) / "last.safetensors"), weights(tmp_path / "workers" / "last.safetensors")
    assert all(torch.equal(a[name], b[name]) for name in a)


# each worker loads torch, which takes seconds
def test_workers_read_what_tensorstore_reads(small_run, tmp_path, stack):
    tensorstore = pytest.importorskip("tensorstore")
    pixels = tifffile.imread(stack)[:6, :96, :96]
    metadata = {"dimensions": [96, 96, 6], "blockSize": [32, 32, 2], "dataType": "uint8"}
    metadata["compression"] = {"type": "gzip"}
    where = {"driver": "file", "path": str(tmp_path / "a.n5")}
    tensorstore.open({"driver": "n5", "kvstore": where, "metadata": metadata, "create": True}).result()[...] = pixels.T
    # a process that is forked from one that has used tensorstore is ended by it
    settings = {**small_run, "sources": [{"hr": str(tmp_path / "a.n5")}], "steps": 2}
    run({**settings, "output": str(tmp_path / "alone")})
    run({**settings, "output": str(tmp_path / "workers")}, workers=1)
    a, b = (weights(tmp_path / name / "last.safetensors") for name in ("alone", "workers"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_an_error_in_a_worker_is_one_line(small_run, tmp_path, stack):
    pixels = np.concatenate([tifffile.imread(stack)] * 3).astype(np.float32)
    pixels[::2, 5, 5] = np.nan
    pixels[np.linspace(0, 143, 32).round().astype(int), 5, 5] = 1  # those that are looked at beforehand
    tifffile.imwrite(tmp_path / "x.tif", pixels, photometric="minisblack")
    with pytest.raises(VolumeError) as caught:
        run(small_run, sources=[{"hr": str(tmp_path / "x.tif")}], steps=100, workers=2)
    assert str(caught.value).startswith("slice ")
    assert "\n" not in str(caught.value)


def test_a_toy_set_is_learnt_by_heart(tmp_path):
    # two smooth pictures without noise: what a network of this size can hold after 300 steps
    y, x = np.mgrid[:96, :96] / 96
    for number in range(2):
        image = 0.5 + 0.2 * np.sin(6 * x + number) * np.cos(5 * y + number) + 0.1 * np.sin(9 * y)
        Image.fromarray(np.rint(255 * image).astype(np.uint8)).save(tmp_path / f"{number}.png")
    settings = {
        "output": tmp_path / "run",
        "model": {"features": 16, "blocks": 1, "heads": 4},
        "sources": [{"hr": tmp_path}],
        "crop": 32,
        "batch": 2,
        "validation_crops": 4,
        "extra_lr_sigma": [0, 0],
        "loss": {"kind": "l1", "weights": [1, 0, 0]},
        "optimiser": {"kind": "adamw", "rate": 3e-3, "schedule": "cosine", "warm_up": 20, "clip": 0.5},
    }
    outcome = run(settings, steps=300)
    config = TrainConfig.model_validate(settings)
    crops = validation_crops([pairs_of(config.sources[0], 3, config.crop, tmp_path)[0]], config, 3)
    assert validate(load_model(outcome.model), crops).psnr_db > 35


SCRIPT = "import sys; from emsr_fast.cli import main; sys.exit(main(sys.argv[1:]))"


def command(*arguments):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_ctrl_c_leaves_a_state_to_resume_from(tmp_path, small_run):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**small_run, "steps": 100_000}))
    process = command("train", tmp_path / "c.yaml")
    log = Path(small_run["output"]) / "log.csv"
    deadline = time.monotonic() + 120
    while not (log.exists() and len(log.read_text().splitlines()) > 5) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "--resume" in errors
    steps = torch.load(Path(small_run["output"]) / "last.pt", weights_only=True)["step"]
    assert steps >= 5
    process = command("train", tmp_path / "c.yaml", "--resume", f"--steps={steps + 2}")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert torch.load(Path(small_run["output"]) / "last.pt", weights_only=True)["step"] == steps + 2


def test_two_processes_learn_what_one_does(tmp_path, small_run):
    run(small_run, steps=4)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**small_run, "steps": 4, "output": str(tmp_path / "two")}))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=29571"),
            *("-m", "emsr_fast", "train", str(tmp_path / "c.yaml")),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("loss", "gradient_norm"):
        assert column(tmp_path / "two", name) == pytest.approx(column(small_run["output"], name), rel=1e-3)


def test_a_signal_to_one_process_stops_all_of_them(tmp_path, small_run):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**small_run, "steps": 100_000}))
    launch = subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=29572"),
            *("-m", "emsr_fast", "train", str(tmp_path / "c.yaml")),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    log = Path(small_run["output"]) / "log.csv"
    deadline = time.monotonic() + 120
    while not (log.exists() and len(log.read_text().splitlines()) > 5) and time.monotonic() < deadline:
        time.sleep(0.1)
    workers = Path(f"/proc/{launch.pid}/task/{launch.pid}/children").read_text().split()
    os.kill(int(workers[-1]), signal.SIGINT)
    launch.wait(timeout=120)
    state = torch.load(Path(small_run["output"]) / "last.pt", weights_only=True)
    assert state["step"] == int(column(small_run["output"], "step")[-1])


def test_a_file_that_breaks_in_mid_run_costs_nothing(small_run, monkeypatch):
    real, calls = TrainingVolume.crop, []

    def break_later(self, *args):
        calls.append(1)
        if len(calls) > 40:  # some are for validation and for the measurement before the first step
            raise VolumeError("slice 3 of x.tif cannot be decoded")
        return real(self, *args)

    monkeypatch.setattr(TrainingVolume, "crop", break_later)
    with pytest.raises(VolumeError, match="slice 3"):
        run(small_run, steps=1000, checkpoint_every=1000)
    assert torch.load(Path(small_run["output"]) / "last.pt", weights_only=True)["step"] >= 1


def test_not_a_number_stops_the_run_and_keeps_the_batch(small_run):
    with pytest.raises(VolumeError, match=r"its batch is in .*bad_batch"):
        run(small_run, steps=60, optimiser={"rate": 1e20})
    folder = Path(small_run["output"])
    (bad,) = folder.glob("bad_batch_*.pt")
    assert torch.load(bad, weights_only=True)["y"].shape == (2, 1, 16, 16)
    # the checkpoint to go on from, if there was time for one, is not the one that broke
    if (folder / "last.pt").exists():
        state = torch.load(folder / "last.pt", weights_only=True)["model"]
        assert all(torch.isfinite(tensor).all() for tensor in state.values())


def test_the_rate_may_change_when_resuming(small_run):
    run(small_run, steps=2)
    optimiser = {**small_run["optimiser"], "rate": 1e-5}
    run(small_run, resume=True, steps=4, optimiser=optimiser)
    assert column(small_run["output"], "rate")[-1] == pytest.approx(1e-5)
    with pytest.raises(CheckpointError, match="with optimiser = "):
        run(small_run, resume=True, steps=6, optimiser={**optimiser, "kind": "adamw"})


def test_runs_are_not_mixed_up(small_run):
    run(small_run, steps=2)
    with pytest.raises(UsageError, match="holds a run; continue it with `resume`"):
        run(small_run, steps=2)
    with pytest.raises(CheckpointError, match="of a run with batch = 2, now it is 4"):
        run(small_run, batch=4, resume=True)
    (Path(small_run["output"]) / "last.pt").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="is not a checkpoint of a training run"):
        run(small_run, resume=True)


def test_a_full_disk_keeps_the_checkpoint_before(small_run, monkeypatch):
    run(small_run, steps=2)
    path = Path(small_run["output"]) / "last.pt"
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("emsr_fast.train.state.torch.save", full)
    with pytest.raises(VolumeError, match="No space left on device"):
        run(small_run, resume=True)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir() if "partial" in p.name] == []

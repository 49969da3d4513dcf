"""Model files: round trips, released checkpoints, and everything that is not one."""

import json
import os
import pickle
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from emsr_fast import (
    BackendError,
    CheckpointError,
    Emsr,
    EmsrConfig,
    ModelCard,
    available_models,
    load_model,
    save_model,
)
from emsr_fast.model.card import parse_card

CONFIG = EmsrConfig(features=16, blocks=1, heads=4)


@pytest.fixture
def released(data):
    """Tensors of a released network, without metadata."""
    return load_file(data / "small_x3.weights.safetensors")


def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", available_models())
def test_shipped_models_load_with_a_full_card(name):
    model = load_model(name)
    assert not model.training
    assert model.card.name == name
    assert model.card.training
    assert model.card.metrics
    assert model.card.attribution


def test_round_trip_keeps_weights_config_and_card(tmp_path):
    config = EmsrConfig(scale=4, features=32, blocks=1, heads=2, levels=2, window_fit="resize")
    model = Emsr(config, ModelCard.for_config(config, name="mine", hr_pixel_nm=[5], metrics={"psnr_db": 31.5}))
    save_model(model, tmp_path / "m.safetensors")
    loaded = load_model(tmp_path / "m.safetensors")
    assert loaded.config == config
    assert loaded.card == model.card
    assert same(model, loaded)
    assert load_model(tmp_path / "m.safetensors", window_fit="pad").config.window_fit == "pad"
    assert os.listdir(tmp_path) == ["m.safetensors"]
    assert stat.S_IMODE((tmp_path / "m.safetensors").stat().st_mode) == 0o644


def test_a_card_states_ranges_of_pixel_sizes_and_reads_those_without():
    card = ModelCard.for_config(CONFIG, lr_pixel_nm=[[13.8, 96], 210])
    again = parse_card(card.model_dump_json(), Path("m"))
    assert again.lr_pixel_nm == [(13.8, 96.0), 210.0]
    assert "lr pixel nm   13.8 to 96, 210" in again.describe()
    # as versions before wrote it
    old = {**json.loads(card.model_dump_json()), "format_version": 1, "lr_pixel_nm": [24, 30.0]}
    assert parse_card(json.dumps(old), Path("m")).lr_pixel_nm == [24, 30]


@pytest.mark.parametrize("form", ["training state", "bare state dict", "data parallel", "safetensors"])
def test_released_checkpoints_in_every_form(tmp_path, data, released, form):
    path = tmp_path / ("m.safetensors" if form == "safetensors" else "m.pt")
    if form == "safetensors":
        save_file(released, path)
    else:
        state = {f"module.{k}": v for k, v in released.items()} if form == "data parallel" else released
        content = {"step": 3, "model_state_dict": state, "optimizer_state_dict": {}, "loss": 0.1}
        torch.save(content if form == "training state" else state, path)
    model = load_model(path)
    assert model.config == EmsrConfig(features=16, blocks=2, heads=4, window_fit="resize")
    assert same(model, load_model(data / "small_x3.weights.safetensors"))


def test_a_released_x4_checkpoint_has_two_upsamplers(tmp_path, released):
    released["upsample_shuffle.0.weight"] = torch.randn(64, 16, 3, 3)
    released["upsample_shuffle.2.weight"] = torch.randn(64, 16, 3, 3)
    torch.save(released, tmp_path / "m.pt")
    assert load_model(tmp_path / "m.pt").config.scale == 4


def break_unknown(tensors):
    tensors["BasicBlocks.0.extra.weight"] = torch.zeros(3)


def break_missing(tensors):
    del tensors["BasicBlocks.1.stageI.2.conv1.weight"]


def break_shape(tensors):
    tensors["BasicBlocks.1.conv_4.weight"] = torch.zeros(16, 16, 5, 5)


def break_foreign(tensors):
    tensors.clear()
    tensors["features.0.weight"] = torch.zeros(3, 3)


def break_numbers(tensors):
    tensors["BasicBlocks.1.conv_4.weight"][0] = float("nan")


def break_upsampler(tensors):
    tensors["upsample_shuffle.0.weight"] = torch.zeros(80, 16, 3, 3)


def break_layout(tensors):
    tensors["BasicBlocks.1.conv_4.weight"] = tensors["BasicBlocks.1.conv_4.weight"].to_sparse()


def break_dtype(tensors):
    tensors["BasicBlocks.1.conv_4.weight"] = tensors["BasicBlocks.1.conv_4.weight"].to(torch.int8)


def break_features(tensors):
    tensors["conv_1.weight"] = torch.zeros(0, 1, 3, 3)


def break_prefix(tensors):
    tensors["module.conv_1.weight"] = tensors["conv_1.weight"] + 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_unknown, "1 unknown tensor, the first 'blocks.0.extra.weight'"),
        (break_missing, "lacks 1 tensor, the first 'blocks.1.body.2.conv1.weight'"),
        (break_shape, r"'blocks.1.conv_out.weight' has shape \(16, 16, 5, 5\), expected \(16, 16, 3, 3\)"),
        (break_foreign, "not an EMSR checkpoint: expected 'conv_in.weight' of rank 4, found none among 1 tensors"),
        (break_numbers, "NaN or infinite"),
        (break_layout, "sparse_coo.*expected dense float values"),
        (break_dtype, "torch.int8.*expected dense float values"),
        (break_features, "'conv_in.weight' has no outputs"),
        (break_prefix, "both with and without the prefix 'module.'"),
        (break_upsampler, "has 5 x 16 outputs, expected 4 or 9 x"),
    ],
)
def test_wrong_tensors_are_named(tmp_path, released, damage, message):
    damage(released)
    torch.save(released, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path / "m.pt")


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("i-was-run",)


def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model_state_dict": Malicious()}, "m.pt")
    with open("plain.pkl", "wb") as file:
        pickle.dump(Malicious(), file)
    for name in ("m.pt", "plain.pkl"):
        with pytest.raises(CheckpointError, match="refused: it is a pickle that wants to run code"):
            load_model(name)
    assert not os.path.exists("i-was-run")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"hello, this is not a model at all", "refused|damaged"),
        (b"\x89PNG\r\n\x1a\n" + bytes(200), "refused|damaged"),
        (b"PK\x03\x04" + bytes(100), "damaged"),
        (b"\xff\xff\x00\x00\x00\x00\x00\x00{" + bytes(40), "damaged safetensors"),
    ],
)
def test_files_that_are_no_models(tmp_path, content, message):
    (tmp_path / "m.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path / "m.pt")


def test_truncated_files(tmp_path, data, released):
    whole = (data / "small_x3.weights.safetensors").read_bytes()
    torch.save(released, tmp_path / "whole.pt")
    for content in (whole, (tmp_path / "whole.pt").read_bytes()):
        (tmp_path / "half").write_bytes(content[: len(content) // 2])
        with pytest.raises(CheckpointError, match="damaged"):
            load_model(tmp_path / "half")


def test_a_missing_model_lists_the_shipped_ones(tmp_path):
    with pytest.raises(CheckpointError, match=r"neither a file nor one of the package's: .*emsr-x3-small"):
        load_model("emsr-x9")
    with pytest.raises(CheckpointError, match="is a folder"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 3}, "format version 3: update emsr_fast"),
        ({"surprise": 1}, "wrong at 'surprise'"),
        ({"lr_pixel_nm": [[40, 30]]}, r"wrong at 'lr_pixel_nm\.0': .*the least and the most of a range"),
        ({"architecture": {"features": 16, "colour": 3}}, "cannot be read: .*colour"),
        ({"architecture": {"levels": 3.5}}, "levels must be a whole number"),
        ({"architecture": {"features": 10**9}}, "features must be a whole number from 1 to 4096"),
        ({"architecture": {"features": 18}}, "heads must divide features"),
    ],
)
def test_wrong_cards_are_named(tmp_path, change, message):
    card = {**json.loads(ModelCard.for_config(CONFIG).model_dump_json()), **change}
    save_file(Emsr(CONFIG).state_dict(), tmp_path / "m.safetensors", metadata={"emsr_card": json.dumps(card)})
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path / "m.safetensors")


@pytest.mark.parametrize(("device", "message"), [("warp", "unknown"), ("mps", "not supported"), ("cuda:99", "99")])
def test_devices_that_are_not_there(device, message):
    with pytest.raises(BackendError, match=message):
        load_model(device=device)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    save_model(Emsr(CONFIG), path)
    before = path.read_bytes()

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("emsr_fast.publish._fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_model(Emsr(CONFIG), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.safetensors"]

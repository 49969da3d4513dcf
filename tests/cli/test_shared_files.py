"""Files that are made to be shared do not tell the folders of the machine that they were made on."""

import json
import re
from importlib import resources

import numpy as np
import pytest
import tifffile
from PIL import Image

from emsr_fast.cli import main
from emsr_fast.model import Emsr, EmsrConfig, ModelCard, load_model, save_model
from emsr_fast.train.start import lineage

FOLDER = "home-of-who-made-this"


@pytest.fixture
def home(tmp_path):
    (tmp_path / FOLDER).mkdir()
    return tmp_path / FOLDER


@pytest.fixture
def shared(tmp_path):
    (tmp_path / "shared").mkdir()
    return tmp_path / "shared"


def damaged(path, pixels):
    """Write a TIFF of which slice 2 cannot be decompressed; the error has the file's path."""
    tifffile.imwrite(path, pixels, photometric="minisblack", compression="zlib", rowsperstrip=pixels.shape[1])
    with tifffile.TiffFile(path) as file:
        offset = file.pages[2].dataoffsets[0]
    with path.open("r+b") as file:
        file.seek(offset + 10)
        file.write(b"\xff" * 40)
    return path


def tellers(folder):
    """Return the files in which the folder's name can be read; what PNG compresses is unpacked."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            text = path.read_bytes()
            if path.suffix == ".png":
                with Image.open(path) as image:
                    text += json.dumps(image.info, default=str).encode()
            if FOLDER.encode() in text:
                found.append(path.name)
    return found


@pytest.mark.parametrize("name", ["out.ome.zarr", "out.ome.tif", "out.h5"])
def test_the_reasons_in_an_outputs_metadata_have_names_of_files_alone(home, shared, stack, name):
    image = damaged(home / "in.tif", tifffile.imread(stack)[:4, :48, :48])
    command = ["infer", str(image), "-o", str(shared / name), "--input-voxel", "ignore"]
    main(command)
    assert main([*command, "--finish"]) == 4
    whole = b"".join(path.read_bytes() for path in (shared / name, *(shared / name).rglob("*.json")) if path.is_file())
    assert b"slice 2 of in.tif cannot be read" in whole
    assert tellers(shared) == []


def test_a_report_has_names_of_files_alone(home, shared, stack):
    pixels = tifffile.imread(stack)[:4, :64, :64]
    image = damaged(home / "in.tif", pixels)
    tifffile.imwrite(home / "sr.tif", pixels.repeat(3, 1).repeat(3, 2), photometric="minisblack")
    assert main(["evaluate", str(home / "sr.tif"), "--lr", str(image), "-o", str(shared / "report")]) == 0
    text = (shared / "report" / "report.json").read_text()
    report = json.loads(text)
    assert [volume["file"] for volume in report["volumes"].values()] == ["sr.tif", "in.tif"]
    assert "slice 2 of in.tif cannot be read" in text
    assert tellers(shared) == []


def test_pairs_and_pictures_have_names_of_files_alone(home, shared, stack):
    hr = tifffile.imread(stack)[:6]
    lr = hr.reshape(6, 64, 3, 64, 3).mean((2, 4)).astype(np.uint8)
    tifffile.imwrite(home / "lr.tif", lr, photometric="minisblack")
    tifffile.imwrite(home / "hr.tif", hr[:, 30:174, 30:174], photometric="minisblack")
    sizes = ["--lr-voxel", "30", "--hr-voxel", "10"]
    assert main(["pair", str(home / "lr.tif"), str(home / "hr.tif"), "-o", str(shared / "pairs"), *sizes]) == 0
    settings = json.loads((shared / "pairs" / "pair.json").read_text())
    assert (settings["lr"], settings["hr"]) == ("lr.tif", "hr.tif")
    preview = ["preview", str(home / "lr.tif"), "-o", str(shared / "preview.png"), "--input-voxel", "ignore"]
    assert main(preview) == 0
    assert tellers(shared) == []


def settings_of(home, run, start):
    values = {
        "output": str(home / run),
        "sources": [{"hr": str(home / "in.tif"), "slices": "0:4", "validation_slices": "4:6"}],
        **{"crop": 16, "batch": 1, "steps": 1, "validation_crops": 1, "start_from": str(start)},
    }
    path = home / f"{run}.json"
    path.write_text(json.dumps(values))
    return str(path)


# three runs of training, some 4 s
def test_a_card_has_a_flat_chain_of_starts_and_names_alone(home, stack):
    tifffile.imwrite(home / "in.tif", tifffile.imread(stack)[:6], photometric="minisblack")
    start = home / "0.safetensors"
    # as cards of the first versions were: a folder, and the earlier start inside the later one
    oldest = {"name": "oldest", "training": {"sources": [{"hr": str(home / "old.tif")}]}}
    card = ModelCard.for_config(EmsrConfig(features=16, blocks=1, heads=4), name="old")
    card.training = {"data": str(home / "data"), "started_from": oldest}
    save_model(Emsr(card.config, card), start)
    sizes = []
    for generation in range(3):
        assert main(["train", settings_of(home, f"run{generation}", start), "--name", f"new{generation}"]) == 0
        start = home / f"run{generation}" / "last.safetensors"
        sizes.append(len(load_model(start, device="cpu").card.model_dump_json()))
    card = load_model(start, device="cpu").card
    chain = card.training["started_from"]
    assert [one["name"] for one in chain] == ["new1", "new0", "old", "oldest"]
    assert not any("started_from" in one for one in chain)
    assert (chain[2]["data"], chain[3]["sources"]) == ("data", [{"hr": "old.tif"}])
    assert FOLDER not in card.model_dump_json()
    # each generation adds its own line, and nothing is repeated
    assert sizes[2] - sizes[1] == sizes[1] - sizes[0]
    assert "new1" in card.describe()


@pytest.mark.parametrize("odd", [5, "text", [3], {"training": 7}, {"name": None, "training": {"started_from": 1}}])
def test_a_chain_of_starts_that_is_none_is_left_out(odd):
    card = ModelCard.for_config(EmsrConfig(), name="odd", training={"steps": 1, "started_from": odd})
    assert lineage(card)[0] == {"name": "odd", "steps": 1}


def test_shipped_cards_have_names_alone():
    for path in (resources.files("emsr_fast") / "weights").iterdir():
        if path.name.endswith(".safetensors"):
            text = load_model(path.name.removesuffix(".safetensors"), device="cpu").card.model_dump_json()
        else:
            text = path.read_text(encoding="utf-8")
        assert not re.search(r'(?<=["\s])(/|~|[A-Z]:)[\w.-]*[/\\]', text), path.name


# the network is exported once: some 10 s
@pytest.mark.exhaustive
def test_an_exported_model_has_no_folders(home, shared):
    card = ModelCard.for_config(EmsrConfig(features=16, blocks=1, heads=4), name="mine")
    save_model(Emsr(card.config, card), home / "mine.safetensors")
    assert main(["export", "-o", str(shared / "mine.onnx"), "--model", str(home / "mine.safetensors")]) == 0
    assert tellers(shared) == []

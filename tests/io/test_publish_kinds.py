"""Devices, FIFOs and sockets under an output's name are refused by their kind and left as they are."""

import os
import socket
import stat
from functools import partial

import numpy as np
import pytest
import tifffile

from emsr_fast.cli import main
from emsr_fast.errors import VolumeError
from emsr_fast.evaluate.folder import check_report_folder
from emsr_fast.export.output import checked_names
from emsr_fast.io.destination import check_destination
from emsr_fast.pair.write import check_folder as check_pair_folder
from emsr_fast.publish import Staging, refuse_folder
from emsr_fast.train.finetuned_output import check_names as check_model_names


def anything(path):
    """The check of a caller that may replace whatever is there."""


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


CHECKS = {
    "a file of ours": refuse_folder,
    "a volume": partial(check_destination, overwrite=True),
    "a report": partial(check_report_folder, overwrite=True),
    "a pair set": partial(check_pair_folder, inputs=[], overwrite=True),
}


def make_special(path, kind):
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a socket":
        here = os.getcwd()
        os.chdir(path.parent)  # the address of a socket is at most 108 bytes
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
        os.chdir(here)
    else:
        node = {"a character device": stat.S_IFCHR, "a block device": stat.S_IFBLK}[kind]
        try:
            os.mknod(path, node | 0o600, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("only root makes device nodes")


KINDS = ["a character device", "a block device", "a FIFO", "a socket"]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_neither_file_nor_folder_is_refused_by_its_kind(tmp_path, kind, check):
    final = tmp_path / "a.tif"
    make_special(final, kind)
    mode = final.stat().st_mode
    with pytest.raises(VolumeError, match=kind):
        CHECKS[check](final) if check != "a file of ours" else Staging(final)
    with pytest.raises(VolumeError, match=kind):
        Staging(final, anything)
    assert final.stat().st_mode == mode
    assert names(tmp_path) == ["a.tif"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_device_that_comes_there_during_the_work_is_refused(tmp_path, kind):
    with pytest.raises(VolumeError, match=f"{kind}.*during the work"), Staging(tmp_path / "a", anything):
        make_special(tmp_path / "a", kind)
    assert names(tmp_path) == ["a"]


def test_so_is_a_broken_link(tmp_path):
    """Its name looks free: what does not exist may be written."""
    with pytest.raises(VolumeError, match=r"broken link: not.*during the work"), Staging(tmp_path / "a", anything):
        (tmp_path / "a").symlink_to("nowhere")
    assert os.readlink(tmp_path / "a") == "nowhere"
    with pytest.raises(VolumeError, match="broken link: not replaced"):
        Staging(tmp_path / "a", anything)
    assert names(tmp_path) == ["a"]


def test_so_is_one_under_the_name_of_a_second_output_before_the_work(tmp_path):
    checks = {
        "picture.finetune.png": lambda: check_model_names(tmp_path / "picture.safetensors", overwrite=True),
        "engine.trt.json": lambda: checked_names(tmp_path / "engine.trt", "trt", overwrite=True, model=tmp_path / "m"),
    }
    for name, check in checks.items():
        (tmp_path / name).symlink_to("nowhere")
        with pytest.raises(VolumeError, match=f"{name} is a broken link"):
            check()


@pytest.mark.parametrize(
    "command",
    [["export", "--overwrite"], ["infer", "IN", "--overwrite"], ["preview", "IN", "--overwrite"]],
    ids=lambda command: command[0],
)
def test_commands_refuse_a_device_and_leave_it(tmp_path, command, capsys):
    if command[0] == "export":
        pytest.importorskip("onnx")
    tifffile.imwrite(tmp_path / "in.tif", np.random.default_rng(0).integers(0, 255, (1, 16, 16), np.uint8))
    suffix = {"export": ".onnx", "infer": ".tif", "preview": ".png"}[command[0]]
    node = tmp_path / f"out{suffix}"
    make_special(node, "a character device")
    arguments = [str(tmp_path / "in.tif") if word == "IN" else word for word in command]
    assert main([*arguments, "-o", str(node)]) == 3
    assert "is a character device, neither a file nor a folder" in capsys.readouterr().err
    assert node.is_char_device()
    assert names(tmp_path) == ["in.tif", node.name]

"""Every command that writes looks at the name of its output in the same way, before the work."""

import shlex
import shutil

import numpy as np
import pytest
import tifffile

from emsr_fast.cli import main
from emsr_fast.model.zoo import model_path

# command, and a name for its output
COMMANDS = {
    "infer": ("infer in.tif", "a.tif"),
    "preview": ("preview in.tif", "a.png"),
    "evaluate": ("evaluate in.tif", "report"),
    "pair": ("pair in.tif hr.tif", "pairs"),
    "finetune": ("finetune in.tif --model model.safetensors", "a.safetensors"),
    "export": ("export --model model.safetensors", "a.onnx"),
    "export trt": ("export --format trt --model model.safetensors", "a.engine"),
}
every_command = pytest.mark.parametrize("command", COMMANDS)


@pytest.fixture
def error(tmp_path, monkeypatch, capsys):
    """Run a command with an output, and options behind it; return its exit code and the line it printed."""
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    for name in ("in.tif", "hr.tif"):
        tifffile.imwrite(name, np.random.default_rng(0).integers(0, 255, (2, 40, 40), np.uint8))
    shutil.copy(model_path("emsr-x3-small"), "model.safetensors")

    def run(command, output, *options):
        code = main([*COMMANDS[command][0].split(), "-o", str(output), *options])
        (line,) = capsys.readouterr().err.splitlines()
        return code, line

    return run


@every_command
def test_a_file_of_another_kind_is_never_replaced(tmp_path, error, command):
    taken = tmp_path / COMMANDS[command][1]
    taken.write_bytes(b"years of work")
    for options in ([], ["--overwrite"]):
        code, line = error(command, taken, *options)
        assert code == 3
        assert f"output {taken} exists and is a file that is not " in line
        assert line.endswith(": not overwritten; choose another name")
        assert taken.read_bytes() == b"years of work"


@every_command
def test_a_folder_of_other_things_is_never_replaced(tmp_path, error, command):
    taken = tmp_path / COMMANDS[command][1]
    taken.mkdir()
    (taken / "thesis.txt").write_text("years of work")
    code, line = error(command, taken, "--overwrite")
    assert code == 3
    assert f"output {taken} exists and is a folder that is not " in line
    assert (taken / "thesis.txt").read_text() == "years of work"


@every_command
def test_a_missing_folder_is_named_with_the_line_that_makes_it(tmp_path, error, command):
    output = tmp_path / "it's new" / COMMANDS[command][1]
    code, line = error(command, output)
    assert code == 3
    assert f"output folder {output.parent} does not exist; create it first: " in line
    assert shlex.split(line.partition("create it first: ")[2]) == ["mkdir", "-p", str(output.parent)]


@pytest.mark.parametrize(
    ("command", "input_name"), [("export", "model.safetensors"), ("export trt", "model.safetensors"),
                                ("finetune", "model.safetensors"), ("infer", "in.tif")],
)  # fmt: skip
def test_no_output_replaces_an_input(tmp_path, error, command, input_name):
    before = (tmp_path / input_name).read_bytes()
    code, line = error(command, input_name, "--overwrite")
    assert code == 2
    assert f"output {tmp_path / input_name} is the input itself; choose another name" in line
    assert (tmp_path / input_name).read_bytes() == before


@pytest.mark.parametrize("command", ["evaluate", "pair"])
def test_no_folder_is_written_inside_an_input(tmp_path, error, command):
    (tmp_path / "in.tif").unlink()
    (tmp_path / "in.tif").mkdir()
    tifffile.imwrite("in.tif/0.tif", np.zeros((40, 40), np.uint8))
    code, line = error(command, tmp_path / "in.tif" / "here")
    assert code == 2
    assert f"lies inside the input {tmp_path / 'in.tif'}" in line


def test_the_description_of_an_engine_is_never_written_over_another_file(tmp_path, error):
    taken = tmp_path / "a.engine.json"
    taken.write_text('{"mine": 1}')
    code, line = error("export trt", "a.engine", "--overwrite")
    assert code == 3
    assert f"output {taken} exists and is a file that is not the description of an engine" in line
    assert taken.read_text() == '{"mine": 1}'

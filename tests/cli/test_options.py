"""Only the command line spells options: the rest names settings as Python does, and `CommandLine` translates."""

import ast
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import typer.main

import emsr_fast
from emsr_fast.cli import app, main
from emsr_fast.cli.common import CommandLine, options_of
from emsr_fast.infer.retry import same_call
from emsr_fast.train.config import TrainConfig

GROUP = typer.main.get_command(app)
PACKAGE = Path(emsr_fast.__file__).parent
MODULES = [path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] != "cli"]
# the options of git, and of a converter
OF_ANOTHER_PROGRAM = {PACKAGE / "bench" / "machine.py", PACKAGE / "bench" / "runtimes.py"}


def commands(group):
    for command in group.commands.values():
        yield from commands(command) if hasattr(command, "commands") else [command]


def test_no_module_outside_cli_spells_an_option():
    spelt = {path: re.findall(r"(?<![\w-])--[a-z{][\w-]*", path.read_text()) for path in MODULES}
    assert {path for path, options in spelt.items() if options} == OF_ANOTHER_PROGRAM


def test_every_setting_in_a_message_is_an_option_of_a_command():
    known = {name for command in commands(GROUP) for name in options_of(command)} | set(TrainConfig.model_fields)
    known |= {name.removeprefix("no_") for name in known}
    named = {
        match[1] for path in MODULES for match in re.finditer(r"(?<!`)`([a-z_]+)(?:=[^`\n]*)?`(?!`)", path.read_text())
    }
    assert len(named) > 20
    assert named <= known


@pytest.mark.parametrize(
    ("typed", "message", "shown"),
    [
        ("infer", "give a smaller `tile`", "give a smaller --tile"),
        ("infer", "use `engine=torch`, or `truth_test=False`", "use --engine torch, or --no-truth-test"),
        ("infer", "exists; give `overwrite=True`", "exists; give --overwrite"),
        ("infer", "give `range=LO:HI` or `intensity_range=LO:HI`", "give --range LO:HI or --range LO:HI"),
        ("export", "`best` is '64'", "--opt is '64'"),
        ("cache prune", "`unused_days` and `days`", "--unused-days and --unused-days"),
        # the command lacks an option, or it is none
        ("export", "too large; give a smaller `tile`, or give a smaller `most`", "too large; give a smaller --max"),
        ("preview", "out of memory; close programs, or give a smaller `tile`", "out of memory; close programs"),
        ("pair", "is constant; give `intensity_range=LO:HI`", "is constant"),
        ("pair", "2 images; name one with `key`: a; b", "2 images; name one with FILE:/KEY: a; b"),
        ("pair", "one volume: leave `key=b` out; copy it", "one volume: leave :/b out; copy it"),
        ("infer", "2 images; name one with `key`: a; b", "2 images; name one with --key: a; b"),
        (
            "train",
            "`steps=4` is too few; give `steps=8`, or `resume`",
            "--steps=4 is too few; give --steps=8, or --resume",
        ),
        ("models", "wrong; see `emsr-fast models`", "wrong; see `emsr-fast models`"),
        ("", "`tile` is 3; give a smaller `tile`", "tile is 3"),
        ("nonsense", "`tile` is 3; give a smaller `tile`", "tile is 3"),
    ],
)
def test_a_message_names_settings_as_the_command_spells_them(typed, message, shown):
    assert CommandLine([*typed.split(), "a file"], GROUP).spell(message) == shown


@pytest.mark.parametrize(
    ("typed", "changes", "again"),
    [
        (["-o", "a b.tif", "--finish"], {"finish": None}, "-o 'a b.tif'"),
        (["--tile=64", "in.tif"], {"tile": None}, "in.tif"),
        (["--tile", "64", "in.tif"], {"tile": "32"}, "in.tif --tile 32"),
        (["--no-truth-test", "--overwrite"], {"truth_test": None}, "--overwrite"),
        (["in.tif"], {"finish": True}, "in.tif --finish"),
        (["in.tif", "--dry-run"], {}, "in.tif --dry-run"),
    ],
)
def test_a_command_is_repeated_with_changes(typed, changes, again):
    assert CommandLine(["infer", *typed], GROUP).again(**changes) == f"emsr-fast infer {again}"


SETTINGS = {name for command in commands(GROUP) for name in options_of(command)} | {"max_memory", "output"}
# words that are also names of settings
NOUNS = {"trust", "model", "output", "lr", "hr", "reference", "engine", "device", "cuda", "image", "full", "version"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_message_about_a_setting_has_it_in_backticks(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            if ast.unparse(node.exc.func) == "ValueError":
                continue  # of an operator: its argument
            first = ast.unparse(node.exc.args[0]).lstrip("f").strip("'\"")
            named = re.match(r"(\w+)(?: and \w+| or \w+)? (?:is|are|has|must|\{\w+!r\})\b", first)
            assert not named or named[1] in NOUNS or named[1] not in SETTINGS, f"{path.name}:{node.lineno}: {first}"


@pytest.mark.parametrize(
    "command",
    ["infer {0} -o a.tif", "inspect {0}", "preview {0}", "pair {0} in.tif -o a --lr-voxel 30 --hr-voxel 10",
     "pair in.tif {0} -o a --lr-voxel 30 --hr-voxel 10",
     "evaluate {0} -o a", "evaluate in.tif -o a --reference {0}", "noise {0}", "finetune {0} -o a.safetensors"],
)  # fmt: skip
@pytest.mark.parametrize("case", ["two images", "constant"])
def test_each_command_advises_only_what_it_can_do(command, case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("in.tif", np.random.default_rng(0).integers(0, 255, (2, 90, 90), np.uint8))
    with h5py.File("two.h5", "w") as file:
        for name in ("a", "b"):
            file[name] = np.full((2, 90, 90), 7.0, np.float32)
    name = "two.h5" if case == "two images" else "two.h5:/a"
    words = command.format(name).split()
    code = main(words)
    shown = capsys.readouterr().err
    if case == "constant" and words[0] == "inspect":
        assert code == 0
        return
    assert code in (2, 3)
    error = shown.splitlines()[-1]
    assert error.startswith("error: ")
    assert "`" not in error
    known = {option.spelt for option in CommandLine(words, GROUP).options.values()}
    assert set(re.findall(r"--[a-z][a-z-]*", error)) <= known
    if case == "two images":
        way = "--key" if "--key" in known else "FILE:/KEY"
        assert f"two.h5 has 2 images; name one with {way}: a (2 x 90 x 90 float32), b" in error
    else:
        assert "constant" in error
        assert "contrast" in error


def test_python_is_told_to_repeat_the_call():
    assert same_call() == "the same call"
    assert same_call(finish=None, shard=None) == "the same call without finish, shard"
    assert same_call(precision=None, engine="torch") == "the same call with engine=torch without precision"


def test_every_command_is_documented_in_sentences():
    for command in commands(GROUP):
        assert command.help.splitlines()[0].endswith("."), command.name
        for parameter in command.params:
            assert parameter.name == "help" or parameter.help.rstrip("0123456789").endswith("."), parameter.name


def test_the_list_of_commands_shows_first_sentences_whole():
    # beside the names, on a terminal of 80 columns
    for command in GROUP.commands.values():
        assert not command.get_short_help_str(limit=66).endswith("..."), command.name


NINES = "9" * 5000


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("infer", ["--slices", f"0:{NINES}"]),
        ("infer", ["--slices", f"{NINES}:"]),
        ("infer", ["--shard", f"1/{NINES}"]),
        ("infer", ["--roi", f"0,0,0:1,1,{NINES}"]),
        ("infer", ["--range", f"0:{NINES}"]),
        ("infer", ["--max-memory", f"{NINES}GB"]),
        ("infer", ["--axes", "Y" * 5000]),
        ("infer", ["--input-voxel", NINES]),
        ("evaluate", ["--slices", f"0:{NINES}"]),
        ("preview", ["--roi", f"0,0,0:1,1,{NINES}"]),
        ("train", [f"--{NINES}=1"]),
        ("train", [f"--sources.{NINES}.hr=a.tif"]),
    ],
)
def test_a_value_of_thousands_of_digits_is_wrong_usage_in_one_short_line(
    tmp_path, monkeypatch, capsys, command, options
):
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("a.tif", np.zeros((2, 40, 40), np.uint8), photometric="minisblack")
    Path("a.yaml").write_text("sources: [{hr: a.tif}]")
    output = {"infer": "o.zarr", "evaluate": "report", "preview": "o.png"}
    given = ["a.yaml"] if command == "train" else ["a.tif", "-o", output[command]]
    assert main([command, *given, *options]) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
    assert command == "train" or options[0] in line
    assert len(line) < 400
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "a.yaml"]

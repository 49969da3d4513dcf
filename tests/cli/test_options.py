"""Only the command line spells options: the rest names settings as Python does, and `CommandLine` translates."""

import re
from pathlib import Path

import pytest
import typer.main

import emsr_fast
from emsr_fast.cli import app
from emsr_fast.cli.common import CommandLine, options_of
from emsr_fast.infer.retry import same_call
from emsr_fast.train.config import TrainConfig

GROUP = typer.main.get_command(app)
PACKAGE = Path(emsr_fast.__file__).parent
MODULES = [path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] != "cli"]
# the options of git
OF_ANOTHER_PROGRAM = {PACKAGE / "bench" / "machine.py"}


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
        ("infer", "give `range=LO:HI` or `grey_range=LO:HI`", "give --range LO:HI or --range LO:HI"),
        ("export", "`best` is '64'", "--opt is '64'"),
        ("cache prune", "`unused_days` and `days`", "--unused-days and --unused-days"),
        # it has no such option, or it is none
        ("preview", "give a smaller `tile`; see `emsr-fast models`", "give a smaller `tile`; see `emsr-fast models`"),
        ("", "give a smaller `tile`", "give a smaller `tile`"),
        ("nonsense", "give a smaller `tile`", "give a smaller `tile`"),
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

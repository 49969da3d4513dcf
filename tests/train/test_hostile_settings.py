"""Files of settings that somebody else wrote: refused in one line, before they take memory or time."""

import json

import pytest

from emsr_fast.cli import main
from emsr_fast.errors import CheckpointError, UsageError
from emsr_fast.model.card import parse_card
from emsr_fast.train.config import read_config

ALIASES = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"] + [
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 9)
]
SETTINGS = {
    "aliases": ("\n".join([*ALIASES, "sources: *a8"]), "its aliases stand for more than 100,000 values"),
    "an alias of its own part": ("sources: &a [*a]", "refers to what it is a part of"),
    "deep lists": (f"sources: {'[' * 5000}{']' * 5000}", "nested too deep"),
    "many digits": (f"steps: {'9' * 5000}", "a number has 5,000 digits"),
    "many hexadecimal digits": (f"sources: [{{hr: a.tif}}]\nsteps: 0x{'f' * 5000}", "a number has 5,002 digits"),
    "a long word": (f"sources: [{{hr: a.tif}}]\nsteps: {'x' * 50_000}", "steps: Input should be a valid integer"),
    "a long key": (f"sources: [{{hr: a.tif}}]\n{'x' * 900}: 1", "Extra inputs are not permitted"),
    "many digits of a fraction": (f"steps: 1.{'9' * 5000}", "a number has 5,002 digits"),
    "a number of many parts": (f"steps: {'1:' * 4000}1.5", "a number has 8,003 digits"),
    **{
        f"{tag} {value}": (f"sources: [{{hr: a.tif}}]\nsteps: !!{tag} {value}", "is not YAML")
        for tag, value in [
            ("timestamp", "x"),
            ("int", "''"),
            ("int", "+"),
            ("int", "x"),
            ("float", "''"),
            ("float", "x"),
            ("bool", "x"),
            ("null", "[1]"),
            ("map", "x"),
            ("seq", "x"),
            ("binary", "é"),
            ("omap", "x"),
            ("pairs", "[1]"),
            ("set", "x"),
            ("str", "[1]"),
            ("nothing", "x"),
            ("int", "[1]"),
            ("float", "{a: 1}"),
            ("bool", "[1]"),
            ("timestamp", "{}"),
        ]
    },
    "no date": ("steps: 2001-99-99", "month must be"),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_hostile_file_of_settings_is_refused_in_one_line(tmp_path, capsys, kind):
    text, reason = SETTINGS[kind]
    (tmp_path / "train.yaml").write_text(text)
    assert main(["train", str(tmp_path / "train.yaml")]) == 2
    said = capsys.readouterr().err
    assert reason in said
    assert len(said) < len(str(tmp_path)) + 400


def test_aliases_that_save_typing_are_read(tmp_path):
    text = "sources: [{hr: a.tif, degradation: &sem {reduce: linear}}, {hr: b.tif, degradation: *sem}]"
    (tmp_path / "train.yaml").write_text(text)
    assert read_config(tmp_path / "train.yaml").sources[1].degradation.reduce == "linear"


def test_a_file_that_is_larger_than_settings_are_is_refused(tmp_path, capsys):
    with (tmp_path / "train.yaml").open("wb") as file:
        file.truncate(2**40)
    assert main(["train", str(tmp_path / "train.yaml")]) == 3
    assert "at most 1048576 are expected" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["[" * 3000, "9" * 5000, "[1"])
def test_a_hostile_value_on_the_command_line_is_refused(value):
    with pytest.raises(UsageError, match="is not a value") as refused:
        read_config(None, [f"steps={value}"])
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "values are nested too deep"),
        ('{"format_version": ' + "9" * 5000 + "}", "a number has thousands of digits"),
        (json.dumps(5), ""),
        ('{"architecture": {"features": 1' + "0" * 4000 + "}}", "features must be a whole number from 1 to 4096"),
        ('{"architecture": {"' + "x" * 5000 + '": 1}}', ""),
        ('{"architecture": {}, "name": "' + "n" * 5000 + '"}', "'name'"),
        ('{"architecture": {}, "' + "n" * 5000 + '": 1}', "'nnn"),
        ('{"architecture": {}, "lr_pixel_nm": [1e4000]}', "'lr_pixel_nm.0'"),
        ('{"architecture": {}, "hr_pixel_nm": [NaN]}', "'hr_pixel_nm.0'"),
        ('{"architecture": {}, "hr_pixel_nm": [-8]}', "'hr_pixel_nm.0'"),
    ],
)
def test_a_hostile_card_is_refused(tmp_path, text, reason):
    with pytest.raises(CheckpointError, match=f"(cannot be read:|is wrong at) {reason}") as refused:
        parse_card(text, tmp_path / "a.safetensors")
    assert len(str(refused.value)) < len(str(tmp_path)) + 300

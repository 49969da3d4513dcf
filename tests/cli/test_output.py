"""What is printed: names and metadata of files can neither steer the terminal nor pass for a line of ours."""

import json
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import zarr

import emsr_fast.cli
from emsr_fast import load_model
from emsr_fast.cli.output import one_line
from emsr_fast.model.checkpoint import save_model
from terminals import shown_on_a_terminal

COMMAND = [sys.executable, "-m", "emsr_fast"]
# colour, the terminal's title and bell, a C1 sequence, a forged line, writing from right to left, and what is not seen
HOSTILE = (
    "x\x1b[31m\x1b]0;title\x07\x9b2J\nengine  forged\u202e\u2028note    forged\r\u061c\u200b\u2060\ufeff\U000e0041"
)


@pytest.fixture(scope="module")
def volume(tmp_path_factory) -> Path:
    """A folder whose name and unit are hostile."""
    path = tmp_path_factory.mktemp("hostile") / f"{HOSTILE.replace('/', '')}.zarr"
    array = zarr.create_array(path, data=np.random.default_rng(0).integers(0, 255, (1, 32, 32)).astype(np.uint8))
    array.attrs.update({"resolution": [8, 8, 8], "units": [HOSTILE] * 3})
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A model whose card has a hostile name."""
    network = load_model(device="cpu")
    network.card = network.card.model_copy(update={"name": HOSTILE, "lr_pixel_nm": []})
    save_model(network, path := tmp_path_factory.mktemp("model") / "a.safetensors")
    return path


def check_clean(text: str) -> None:
    controls = [character for character in text if unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp")]
    assert set(controls) <= {"\n"}
    assert "\nnote    forged" not in text
    assert not re.search(r"^engine +forged", text, re.MULTILINE)


def test_infer_prints_hostile_names_without_their_control_characters(volume, model, tmp_path):
    output = tmp_path / f"{HOSTILE}.tif"
    done = subprocess.run(
        [*COMMAND, "infer", volume, "-o", output, "--model", model, "--device", "cpu"],
        capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    check_clean(done.stdout)
    check_clean(done.stderr)
    assert len(re.findall("^engine ", done.stderr, re.MULTILINE)) == 1
    unseen = "\\u061c\\u200b\\u2060\\ufeff\\U000e0041"
    assert f"model   x\\x1b[31m\\x1b]0;title\\x07\\x9b2J engine  forged\\u202e note    forged {unseen}" in done.stderr


@pytest.mark.parametrize("arguments", [["inspect"], ["inspect", "--key", HOSTILE], ["verify"], ["inspect", "--json"]])
def test_other_commands_print_them_so_too(volume, capfd, arguments):
    emsr_fast.cli.main([*arguments, str(volume)])
    shown = capfd.readouterr()
    check_clean(shown.out)
    check_clean(shown.err)
    if "--json" in arguments:
        assert json.loads(shown.out)["path"] == str(volume)


def test_the_marks_that_join_letters_stay():
    assert one_line("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u0915\u094d\u200d\u0937", None).count("\\") == 0


def test_a_message_quotes_no_more_than_a_line(capfd, tmp_path):
    assert emsr_fast.cli.main(["inspect", str(tmp_path / "a.h5"), "--axes", "Z" * 100_000]) == 2
    shown = capfd.readouterr().err
    assert len(shown) < 1100
    assert shown.startswith("error: --axes 'ZZZ")


_BESIDE_A_BAR = f"""
import sys, warnings
from emsr_fast.cli.output import cleaned
from emsr_fast.cli.progress import progress
with cleaned(), progress(10) as done:
    done(5)
    warnings.warn({HOSTILE!r})
    print({HOSTILE!r})
    done(5)
"""


def test_a_bar_stays_a_bar_and_what_is_printed_beside_it_is_clean():
    shown = shown_on_a_terminal([sys.executable, "-c", _BESIDE_A_BAR]).decode()
    assert "100%" in shown
    for evil in ("\x1b]0;", "\x07", "\x9b", "\u202e"):
        assert evil not in shown
    assert shown.count("\\x1b]0;title\\x07\\x9b2J") == 2


def test_a_line_has_one_end_whatever_is_in_it():
    assert one_line("a \r\n b\x0bc\x0cd\x85e\u2028f\tg", None) == "a b c d e f\tg"
    assert one_line("a" * 5000 + "do this", 100) == f"{'a' * 70} ... {'a' * 18}do this"


def test_all_commands_print_through_one_place():
    folder = Path(emsr_fast.cli.__file__).parent
    printing = [path.name for path in folder.glob("*.py") if re.search(r"\bprint\(", path.read_text())]
    assert printing == ["output.py"]

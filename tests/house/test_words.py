"""Messages say how many of a thing there are as English does."""

import ast
from pathlib import Path

import pytest

from emsr_fast.wording import counted, listed

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "emsr_fast").rglob("*.py"))


def test_a_number_and_its_noun_agree():
    assert [counted(n, "step") for n in (0, 1, 2, 2000)] == ["0 steps", "1 step", "2 steps", "2,000 steps"]
    assert [counted(n, "entry", "entries") for n in (1, 2)] == ["1 entry", "2 entries"]


def test_of_many_names_the_first_are_said_and_how_many_more_there_are():
    assert [listed(["a", "b", "c"][:n], 2) for n in (0, 1, 2, 3)] == ["", "a", "a, b", "a, b and 1 more"]
    assert listed(["a"] * 1202, 2, "; ") == "a; a; and 1,200 more"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_text_has_an_s_in_brackets(path):
    texts = (node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
    assert not [text for text in texts if isinstance(text, str) and "(s)" in text]

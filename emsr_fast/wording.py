"""Words that messages of several rooms share."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path, PurePath


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun, such as "1 step" or "2,000 steps"; ``plural`` is for nouns that take no s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def are(number: int, noun: str) -> str:
    """Return a number with its noun and verb, such as "1 block is" or "2 blocks are"."""
    return f"{counted(number, noun)} {'is' if number == 1 else 'are'}"


def listed(names: Sequence[str], most: int, between: str = ", ") -> str:
    """Return ``names`` in words; of more than ``most`` only the first, as in "a, b and 3 more"."""
    shown, rest = between.join(names[:most]), len(names) - most
    if rest <= 0:
        return shown
    return f"{shown}{'' if between == ', ' else between.rstrip()} and {rest:,} more"


def sizes(values: Sequence[float | tuple[float, float]]) -> str:
    """Return sizes and ranges of sizes in words, such as "8, 10 to 30"."""
    return ", ".join(f"{v[0]:g} to {v[1]:g}" if isinstance(v, tuple) else f"{v:g}" for v in values)


def shortened(text: str, most: int = 80) -> str:
    """Return ``text`` with ``most`` characters at most, for a message that quotes it."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def quoted(text: str) -> str:
    """Return ``text`` in quotes and shortened, for a message about what the user gave."""
    return repr(shortened(text))


def without_folders(text: str, *paths: str | PurePath) -> str:
    """Return a message for a file that is made to be shared, without the folders that ``paths`` lie in.

    What is left of "/home/ana/stack/7.tif" is "7.tif" if that is one of ``paths``, and "stack/7.tif" if the stack is.
    """
    every = {path for given in paths for path in (Path(given), Path(given).absolute(), Path(given).resolve())}
    folders = {str(folder) for path in every for folder in path.parents} - {".", "/"}
    for folder in sorted(folders, key=len, reverse=True):
        # not inside a longer path
        text = re.sub(rf"(?<![\w./-]){re.escape(folder)}/+", "", text)
    return text


def shell(*words: str | Path) -> str:
    """Return a command as it can be typed, whatever characters its file names have."""
    return shlex.join(map(str, words))

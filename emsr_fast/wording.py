"""Words that messages of several rooms share."""

from __future__ import annotations

import shlex
from pathlib import Path


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun, such as "1 step" or "2,000 steps"; ``plural`` is for nouns that take no s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def are(number: int, noun: str) -> str:
    """Return a number with its noun and verb, such as "1 block is" or "2 blocks are"."""
    return f"{counted(number, noun)} {'is' if number == 1 else 'are'}"


def shortened(text: str, most: int = 80) -> str:
    """Return ``text`` with ``most`` characters at most, for a message that quotes it."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def shell(*words: str | Path) -> str:
    """Return a command as it can be typed, whatever characters its file names have."""
    return shlex.join(map(str, words))

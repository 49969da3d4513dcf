"""How to continue after an error: text for messages."""

from __future__ import annotations

from collections.abc import Callable

# returns the command or call to repeat; settings given to it are changed in it, or left out where they are None
Retry = Callable[..., str]


def same_call(**changes: str | None) -> str:
    """Return the words for "the same call", with ``changes``."""
    given = ", ".join(f"{name}={value}" for name, value in changes.items() if value is not None)
    left_out = ", ".join(name for name, value in changes.items() if value is None)
    words = ["the same call", *([f"with {given}"] if given else []), *([f"without {left_out}"] if left_out else [])]
    return " ".join(words)

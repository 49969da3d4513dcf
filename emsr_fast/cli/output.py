"""All that is printed: what files say of themselves can neither steer the terminal nor pass for a line of ours.

``put`` prints lines, each as one line. ``cleaned`` guards both streams while a command runs, so that warnings and what
libraries print are cleaned too.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

# all that ends a line for a terminal or for Python
_LINE_END = re.compile("[ \t]*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\\s*")
# C0, DEL and C1, which a terminal obeys, and marks that turn the direction of writing or are not seen at all. Scripts
# such as Persian and Hindi need the two that join letters, U+200C and U+200D
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_LONGEST_LINE = 5000  # a path may have 4096


def put(*lines: str, stream: TextIO | None = None, most: int | None = _LONGEST_LINE) -> None:
    """Print each of ``lines`` as one line of at most ``most`` characters, on stdout or ``stream``."""
    cleaned_lines = (one_line(line, most) for line in lines)
    print(*cleaned_lines, sep="\n", file=sys.stdout if stream is None else stream, flush=True)


def one_line(text: str, most: int | None) -> str:
    """Return ``text`` without line ends, control characters, and what is more than ``most`` characters."""
    line = _without_controls(_LINE_END.sub(" ", text))
    if most is None or len(line) <= most:
        return line
    end = most // 4  # where messages say what to do
    return f"{line[: most - end - 5]} ... {line[-end:]}"


@contextmanager
def cleaned() -> Iterator[None]:
    """Clean whatever is written to stdout and stderr until the block ends."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (None if stream is None else cast(TextIO, _Cleaned(stream)) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def uncleaned(stream: TextIO) -> TextIO:
    """Return the stream that ``stream`` cleans for; itself if it cleans nothing."""
    return stream.under if isinstance(stream, _Cleaned) else stream


class _Cleaned:
    """A stream of text that shows control characters instead of obeying them."""

    def __init__(self, under: TextIO) -> None:
        self.under = under

    def write(self, text: str) -> int:
        self.under.write(_without_controls(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.under, name)


def _without_controls(text: str) -> str:
    return _CONTROL.sub(lambda found: _shown(ord(found[0])), text)


def _shown(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

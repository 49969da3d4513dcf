"""Reads small files that may be hostile: only regular files, and no more bytes than expected."""

from __future__ import annotations

import errno
import json
import os
import stat
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any
from xml.parsers import expat

from emsr_fast.ownership import why_not_ours

MOST_BYTES = 2**26  # of settings, metadata and journals


def read_regular(path: Path, most: int = MOST_BYTES, *, ours: bool = False) -> bytes:
    """Return the content of a file.

    Args:
        most: the most bytes that are expected.
        ours: whether a file that somebody else could have written is an error, see ``why_not_ours``.

    Raises:
        OSError: it is missing or may not be read, is a pipe, device or folder, or not what the arguments ask for.
    """
    # without O_NONBLOCK, to open a pipe would wait for ever
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is a pipe, device or folder and no file", str(path))
        # of the open file: the name may be another's by now
        if ours and (reason := why_not_ours(found)):
            raise OSError(errno.EPERM, reason, str(path))
        if found.st_size > most:
            raise OSError(errno.EFBIG, f"it has {found.st_size} bytes, at most {most} are expected", str(path))
        return file.read(found.st_size)


def parse_json(text: str | bytes, *, each_once: bool = False) -> Any:
    """Return the JSON value in ``text``.

    Args:
        each_once: whether an object with two parts of one name is an error; otherwise the last one counts.

    Raises:
        ValueError: it is no JSON, is nested too deep, or has a number of thousands of digits.
    """
    try:
        return json.loads(text, object_pairs_hook=_parts if each_once else None)
    except (RecursionError, ValueError) as error:
        if (reason := too_much(error)) is None:
            raise
        raise ValueError(reason) from error


def parse_xml(text: str | bytes) -> ElementTree.Element:
    """Return the root of the XML in ``text``.

    Raises:
        ElementTree.ParseError: it is no XML, or has a DOCTYPE: entities could name files or grow without end.
    """

    def refuse(*_: object) -> None:
        raise ElementTree.ParseError("it has a DOCTYPE, which image metadata do not need")

    first = expat.ParserCreate()
    first.StartDoctypeDeclHandler = refuse
    try:
        first.Parse(text, True)
        return ElementTree.fromstring(text)
    except (expat.ExpatError, ValueError, LookupError) as error:  # also of an encoding that Python does not know
        raise ElementTree.ParseError(str(error)) from error


def _parts(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"two parts are called {name!r:.60}")
        found[name] = value
    return found


def too_much(error: Exception) -> str | None:
    """Return why Python gave up reading JSON that is well formed; None if it is not, or for any other error."""
    if isinstance(error, RecursionError):
        return "values are nested too deep"
    # the advice of the message, a setting of Python, is no help to users
    return "a number has thousands of digits" if "set_int_max_str_digits" in str(error) else None

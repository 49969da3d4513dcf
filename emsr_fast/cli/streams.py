"""Standard streams that do not end the work: closed ones, ones whose reader leaves, ones that lack a character."""

from __future__ import annotations

import codecs
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

_NAMES = "emsr_fast.names"  # what is done with a character that the stream's encoding lacks


@contextmanager
def standard_streams() -> Iterator[None]:
    """Inside the block, writing to stdout or stderr fails only where output of value is lost.

    Closed streams (``>&-``) and those whose reader has left (``| head``) take everything and keep nothing. The same
    holds for stderr on a full disk or a lost terminal, because its lines only accompany the work. Only stdout
    on a disk or terminal that fails raises OSError, once.
    """
    _open_closed_descriptors()
    codecs.register_error(_NAMES, _written_all_the_same)
    before = sys.stdout, sys.stderr
    sys.stdout = _lasting(sys.stdout, sys.__stdout__, essential=True)
    sys.stderr = _lasting(sys.stderr, sys.__stderr__, essential=False)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        sys.stdout, sys.stderr = before


def _open_closed_descriptors() -> None:
    """Open descriptors 0, 1 and 2 where they are closed: else the next file has one, and libraries print into it."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # the system gives the lowest number that is free, which is this one
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _lasting(stream: Any, own: Any, *, essential: bool) -> TextIO:
    """Return what takes the place of a standard stream; one that a caller has put there stays."""
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")
    if stream is not own:
        return stream
    stream.flush()
    buffer = io.BufferedWriter(_Descriptor(stream.fileno(), essential=essential))
    return io.TextIOWrapper(buffer, stream.encoding, _NAMES, line_buffering=stream.line_buffering)


class _Descriptor(io.FileIO):
    """A standard descriptor that drops what it cannot take; an essential one says so, once."""

    def __init__(self, descriptor: int, *, essential: bool) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._essential, self._failed = essential, False

    def write(self, data: Any) -> int:
        if self._failed:
            return len(data)
        try:
            # None: another program has made the terminal or pipe non-blocking, and it is full
            while (written := super().write(data)) is None:
                select.select([], [self], [])
            return written
        except BrokenPipeError:
            # for libraries and processes of ours as well
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
        except OSError as error:
            if self._essential:
                self._failed = True
                raise OSError(error.errno, error.strerror, "standard output") from error
        return len(data)


def _written_all_the_same(error: UnicodeError) -> tuple[str | bytes, int]:
    r"""Return bytes of file names that are no characters as they are, and other characters as \xe4."""
    assert isinstance(error, UnicodeEncodeError)
    error.end = error.start + 1
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeEncodeError:
        return codecs.lookup_error("backslashreplace")(error)

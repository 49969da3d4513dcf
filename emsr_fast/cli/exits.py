"""How a command ends: exit codes, one line per error, signals as exceptions."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from emsr_fast.cli.limits import told
from emsr_fast.cli.output import one_line, put
from emsr_fast.errors import BackendError, EmsrError, Interrupted, VolumeError

DEBUG_VARIABLE = "EMSR_FAST_DEBUG"

_OK, _UNEXPECTED, _USAGE = 0, 1, 2
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LONGEST_ERROR = 1000  # characters: what it quotes may be of any length
_ONE_STOP_S = 1.0  # signals this close are one stop: a terminal sends to all, and a parent passes its own on
_AGAIN_S = 0.01  # a stop that a finalizer swallowed is sent again after this


def run(command: Callable[[], Any], *, as_json: bool, spell: Callable[[str], str] = str) -> int:
    """Run ``command`` and return the exit code; print one line for an exception.

    Args:
        command: does the work; a number that it returns is the exit code.
        as_json: whether to print an error also as one JSON object on stdout.
        spell: how a message's settings are spelt, see ``CommandLine.spell``.
    """
    try:
        with _signals_as_exceptions():
            try:
                result = command()
            finally:
                sys.stdout.flush()
        return result if isinstance(result, int) else _OK
    except Interrupted as stopped:
        name = signal.Signals(stopped.number).name
        kept = "no unfinished work is kept; repeat the command to begin again"
        if stopped.kept is not None:
            kept = f"what is done is kept in {stopped.kept}; repeat the command to go on"
        return _report(f"stopped by {name}; {kept}", 128 + stopped.number, as_json)
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE) == "1":
            traceback.print_exc()
        text, code = _explain(error)
        return _report(spell(text), code, as_json)


def _explain(error: Exception) -> tuple[str, int]:
    """Return the line and the exit code for an exception."""
    if isinstance(error, EmsrError):
        return str(error), error.exit_code
    # the command line's own errors; their class has moved between releases of typer
    if hasattr(error, "format_message"):
        path = getattr(getattr(error, "ctx", None), "command_path", "emsr-fast")
        return f"{error.format_message().rstrip('.')}; see {path} --help", _USAGE
    if limited := told(error):
        return limited, BackendError.exit_code
    if isinstance(error, MemoryError):
        return "out of memory; close other programs, or give a smaller `tile`", BackendError.exit_code
    if isinstance(error, OSError):
        named = f"{error.filename}: " if error.filename else ""
        return f"{named}{error.strerror or error}; check the path, its permissions and the disk", VolumeError.exit_code
    return (
        f"unexpected {type(error).__name__}: {error}; this is a fault of emsr-fast, "
        f"please report it with the output of the same command under {DEBUG_VARIABLE}=1",
        _UNEXPECTED,
    )


def _report(text: str, code: int, as_json: bool) -> int:
    line = one_line(" ".join(text.split()), _LONGEST_ERROR)
    put(f"error: {line}", stream=sys.stderr)
    if as_json:
        put(json.dumps({"error": line, "exit_code": code}))
    return code


@contextmanager
def _signals_as_exceptions() -> Iterator[None]:
    """Raise ``Interrupted`` on Ctrl-C, SIGTERM and SIGHUP; a later second one ends the process at once."""
    stopped_at: float | None = None
    again: threading.Timer | None = None

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped_at
        if stopped_at is None:
            stopped_at = time.monotonic()
            raise Interrupted(number)
        if time.monotonic() - stopped_at > _ONE_STOP_S:
            # as a kill would: nothing is cleaned up, and no file is ever half-written under its name
            line = f"error: ended at once by a second {signal.Signals(number).name}\n"
            with suppress(OSError):
                os.write(2, line.encode())
            os._exit(128 + number)

    def swallowed(raised: sys.UnraisableHookArgs) -> None:
        # a signal that arrives inside a finalizer or __del__: Python prints the exception there and goes on
        nonlocal stopped_at, again
        if not isinstance(raised.exc_value, Interrupted):
            hook_before(raised)
            return
        stopped_at = None
        # this hook, too, swallows what is raised in it: a thread sends the signal after it has returned
        again = threading.Timer(_AGAIN_S, signal.pthread_kill, (threading.main_thread().ident, raised.exc_value.number))
        again.daemon = True
        again.start()

    # what a parent made us ignore (nohup, a shell's background job) stays ignored
    taken = (signal.SIG_DFL, signal.default_int_handler)
    before = {number: signal.getsignal(number) for number in _SIGNALS if signal.getsignal(number) in taken}
    hook_before, sys.unraisablehook = sys.unraisablehook, swallowed
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        try:
            if again is not None:
                again.cancel()
                again.join()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            sys.unraisablehook = hook_before

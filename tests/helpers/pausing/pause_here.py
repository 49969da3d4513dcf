"""Stops this process before one of its steps on the file system, or lists them; nothing of it is in the package.

Python itself announces the steps (audit events): renames, removals, locks. Code that is given a new step is watched
without further ado. For any other moment the package may say ``sys.audit("emsr_fast.NAME", ...)``.
"""

import os
import sys
import threading
import time

_STEPS = {"os.rename", "os.remove", "os.rmdir", "fcntl.flock"}


def _said(event, values):
    """Return a step as one line, None for what is no step."""
    if event == "ctypes.dlsym" and values[1] == "renameat2":
        return "renameat2"
    if event in _STEPS or event == "open" or event.startswith("emsr_fast."):
        paths = [os.fsdecode(value) for value in values if isinstance(value, (str, bytes, os.PathLike))]
        return " ".join([event, *paths])
    return None


def watch(*, log=None, marker=None, step="", number=1):
    """Write every step to the file ``log``, or stop before one: make the file ``marker`` and wait until it is gone.

    Args:
        step: what the step's line contains, such as "os.rename" or "renameat2"; any step by default. Files that are
            opened are a step only where this begins with "open".
        number: which of those steps, counted from 1.
    """
    seen, held = 0, threading.local()

    def hook(event, values):
        nonlocal seen
        line = _said(event, values)
        # what this hook does is no step of the process
        if line is None or getattr(held, "busy", False) or (event == "open" and not step.startswith("open")):
            return
        held.busy = True
        try:
            if log is not None:
                with open(log, "a") as file:
                    file.write(line.replace("\n", " ") + "\n")
            if marker is not None and step in line:
                seen += 1
                if seen == number:
                    _wait(marker)
        finally:
            held.busy = False

    sys.addaudithook(hook)


def _wait(marker):
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return  # another process of the command waits already
    while os.path.exists(marker):
        time.sleep(0.002)

"""A terminal for a process of a test, and what the process wrote to it."""

import os
import pty
import subprocess


def shown_on_a_terminal(command, **streams):
    """Run ``command``; return the bytes that a terminal shows.

    Args:
        streams: where its other streams go; without them, stdout and stderr go to the terminal.
    """
    controller, terminal = pty.openpty()
    process = subprocess.Popen(command, **{"stdout": terminal, "stderr": terminal, **streams})
    os.close(terminal)
    shown = b""
    try:
        while data := os.read(controller, 4096):
            shown += data
    except OSError:  # how a terminal says that the other side is gone
        pass
    os.close(controller)
    assert process.wait(60) == 0
    return shown

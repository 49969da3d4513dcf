"""Real processes of the command that stop before a step of theirs, to be killed there or let on."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

PAUSING = Path(__file__).parent / "pausing"


def command(arguments):
    """Run ``python -m emsr_fast ARGUMENTS``; return exit status, stdout and stderr."""
    words = [sys.executable, "-m", "emsr_fast", *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


class Paused:
    """``python -m emsr_fast ARGUMENTS``, which stops before a step; see ``pausing/pause_here.py`` for which there are.

    As a context manager it begins when the process has stopped, and ends the process if it still runs.
    """

    def __init__(self, arguments, folder, step, number=1):
        """Start the process; ``folder`` is one for the marker, apart from the command's files."""
        self.marker = Path(folder) / f"paused-{time.monotonic_ns()}"
        setting = {"marker": str(self.marker), "step": step, "number": number}
        variables = {"EMSR_FAST_TEST_PAUSE": json.dumps(setting), "PYTHONPATH": str(PAUSING)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "emsr_fast", *map(str, arguments)],
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self):
        deadline = time.monotonic() + 120
        while not self.marker.exists():
            assert self.process.poll() is None, f"it never came to that step: {self.process.communicate()}"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return self

    def go_on(self, signal=None):
        """Let it on, after a signal if one is given; return exit status, stdout and stderr."""
        if signal is not None:
            self.process.send_signal(signal)
        self.marker.unlink()
        output, errors = self.process.communicate(timeout=120)
        return self.process.returncode, output, errors

    def __exit__(self, *error):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

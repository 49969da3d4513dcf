"""Volumes read in a process of their own, which may hang, crash or take much memory: what it said, and its peak."""

import subprocess
import sys
from pathlib import Path

_CHILD = Path(__file__).parents[1] / "io" / "fuzz_child.py"


def read_apart(path) -> tuple[str, int]:
    """Return what reading ``path`` said ("read (...)", "refused ...", or where it hung), and its peak in MiB."""
    done = subprocess.run(
        [sys.executable, str(_CHILD), str(path)], capture_output=True, text=True, errors="replace", timeout=100
    )
    said = [line for line in done.stdout.splitlines() if line.split()[0] in ("read", "refused", "failed")]
    peak = [line for line in done.stdout.splitlines() if line.startswith("peak")]
    return (said[0], int(peak[0].split()[1])) if said and peak else (done.stdout + done.stderr, 0)

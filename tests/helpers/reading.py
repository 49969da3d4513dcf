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


# the libraries are loaded by the first opening; a peak that it had counts, too
_EVERY_SLICE = """
import re, sys
from pathlib import Path
from emsr_fast.io.registry import open_source

def kilobytes(name):
    return int(re.search(rf"{name}:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

path, *key = sys.argv[1:]
open_source(path, *key).close()
before = kilobytes("VmRSS")
with open_source(path, *key) as source:
    for z in range(source.shape[0]):
        source.read(z, slice(None), slice(None))
print(kilobytes("VmHWM") - before)
"""


def rise_in_memory(path, *key) -> int:
    """Return by how many bytes the memory of a process rises that reads every slice of a volume."""
    command = [sys.executable, "-c", _EVERY_SLICE, str(path), *key]
    return 1024 * int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout)

"""The command's ``main`` in one forked process after another, each of which may stop before a step of its own.

An interpreter loads the packages once, which takes seconds, and forks. The child has then what ``python -m emsr_fast``
has after its imports: one thread, no open files, no handlers, no locks. From there on it is the command, to its end,
and a signal reaches that process alone. tests/infer/test_moments.py does a part of it with whole interpreters.
"""

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

from pauses import PAUSING

_SERVER = """
import atexit, json, os, sys, threading
sys.path.insert(0, sys.argv[1])
import h5py, PIL.Image, skimage.exposure, skimage.metrics, torch, torch._dynamo, xml.etree.ElementTree, zarr
PIL.Image.init()
torch.set_num_threads(1)
import emsr_fast.export.job, emsr_fast.evaluate, emsr_fast.infer.job, emsr_fast.model, emsr_fast.pair
import emsr_fast.pictures.sheet, emsr_fast.preview, emsr_fast.train.finetune
from emsr_fast import renaming
from emsr_fast.cli import main
from pause_here import watch
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        break
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
else:
    os._exit(0)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
os.dup2(os.open(job["says"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
os.dup2(1, 2)
os.chdir(job["folder"])
if job["way"] == "two steps":
    renaming._renameat2 = lambda *args: False  # as on a system without it
if job["watch"]:
    watch(**job["watch"])
exec(job["before"], {"os": os})
code = main(job["arguments"]) if job["arguments"] else 0
# the end of an interpreter, but for taking all its modules apart
threading._shutdown()
atexit._run_exitfuncs()
sys.stdout.flush()
os._exit(code)
"""


class Forks:
    """Runs commands one after another; ``folder`` is for what the commands say."""

    def __init__(self, folder):
        self._says = Path(folder) / "says"
        arguments = [sys.executable, "-c", _SERVER, str(PAUSING)]
        self._server = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self._pid = None

    def run(self, arguments, folder, **options):
        """Run a command in ``folder``; return its exit status and what it said. Options: see ``start``."""
        self.start(arguments, folder, **options)
        return self.end()

    def start(self, arguments, folder, *, before="", way="exchange", **watch):
        """Start a command.

        Args:
            arguments: none for no command, only what comes before.
            before: Python code that runs before it.
            way: "two steps" for a system that cannot exchange two names.
            watch: see ``pause_here.watch``.
        """
        job = {"arguments": [*map(str, arguments)], "before": before, "folder": str(folder), "way": way, "watch": watch}
        self._server.stdin.write(json.dumps({**job, "says": str(self._says)}).encode() + b"\n")
        self._pid = int(self._server.stdout.readline())

    def await_stop(self, marker):
        """Wait until the process stops at its step, which makes ``marker``."""
        deadline = time.monotonic() + 120
        while not marker.exists():
            assert time.monotonic() < deadline
            if select.select([self._server.stdout], [], [], 0.002)[0]:
                raise AssertionError(f"it never came to its step: {self.end()}")

    def let_on(self, number, marker):
        """Send the process that has stopped a signal, and let it on; return its exit status and what it said."""
        os.kill(self._pid, number)
        marker.unlink()
        return self.end()

    def end(self):
        """Return how the process ended, as ``subprocess`` counts it, and what it said."""
        status = int(self._server.stdout.readline())
        return os.waitstatus_to_exitcode(status), self._says.read_text()

    def close(self):
        """End the interpreter; nothing that it does may have failed."""
        self._server.stdin.close()
        assert self._server.wait(60) == 0

"""Processes killed at any moment: nothing is lost, and the same command ends with the same bytes."""

import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from emsr_fast.infer.verify import verify
from many_blocks import AS_OPTIONS, MANY_BLOCKS

# forks runs of infer from a process that has loaded torch, and kills each after the time it reads
FORKS = """
import os, signal, sys, time, torch, json
import emsr_fast.infer.job as job, emsr_fast.engine, emsr_fast.model
torch.set_num_threads(1)
source, options = sys.argv[1], json.loads(sys.argv[2])
for line in sys.stdin:
    output, seconds = line.split()
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            job.infer(source, output, device="cpu", **options)
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    status = None
    if float(seconds) >= 0:
        time.sleep(float(seconds))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    print(status, time.monotonic() - start, flush=True)
"""


class Forks:
    """Runs of infer in processes of their own, killed after a while."""

    def __init__(self, source, options):
        arguments = [sys.executable, "-c", FORKS, str(source), json.dumps(options)]
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, output, seconds=-1.0):
        """Return the wait status and how long it took; never killed if ``seconds`` is negative."""
        print(output, seconds, file=self.process.stdin, flush=True)
        status, took = self.process.stdout.readline().split()
        return int(status), float(took)

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)


def bytes_of(path):
    """Every file below ``path`` and a hash of its content."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return {str(file.relative_to(path.parent)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def kill_again_and_again(stack, folder, name, kills):
    rng = random.Random(name)
    forks = Forks(stack, MANY_BLOCKS)
    try:
        (folder / "undisturbed").mkdir()
        (folder / "killed").mkdir()
        status, whole = forks.run(folder / "undisturbed" / name)
        assert status == 0
        expected = bytes_of(folder / "undisturbed" / name)
        output, rounds, killed = folder / "killed" / name, 0, 0
        while killed < kills or not output.exists():
            # early ones, late ones, and from time to time one that is let through
            status, _ = forks.run(output, rng.uniform(0, whole) if killed < kills else -1)
            assert status in (0, signal.SIGKILL)
            killed += status == signal.SIGKILL
            # the final name is that of a whole output at any time, by any reader
            if output.exists():
                assert bytes_of(output) == expected
                assert verify(output)["complete"]
                # also where the kill came after the last rename: the same command is content, and tidies up
                if (output.parent / f"{name}.partial").exists():
                    assert forks.run(output)[0] == 0
                assert [entry.name for entry in output.parent.iterdir()] == [name]
                shutil.rmtree(output) if output.is_dir() else output.unlink()
                rounds += 1
                if killed >= kills:
                    break
        assert rounds >= 1
    finally:
        forks.close()


@pytest.mark.parametrize("name", ["a.ome.zarr", "a.ome.tif"])
def test_killed_at_random_moments_nothing_is_lost_and_the_end_is_byte_identical(stack, tmp_path, name):
    kill_again_and_again(stack, tmp_path, name, kills=5)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["a.ome.zarr", "a.ome.tif"])
def test_killed_25_times_nothing_is_lost_and_the_end_is_byte_identical(stack, tmp_path, name):
    kill_again_and_again(stack, tmp_path, name, kills=25)


def test_the_command_line_goes_on_where_it_was_killed(stack, tmp_path):
    output = tmp_path / "a.ome.zarr"
    command = [sys.executable, "-m", "emsr_fast", "infer", str(stack), "-o", str(output), *AS_OPTIONS]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    shards = tmp_path / "a.ome.zarr.partial" / "volume" / "0" / "c"
    while len(list(shards.rglob("0"))) < 3 + 2:
        time.sleep(0.01)
        assert process.poll() is None
    process.kill()
    process.wait()
    assert not output.exists()
    checked = subprocess.run([*command[:3], "verify", str(output)], capture_output=True, text=True)
    assert checked.returncode == 4
    assert "0/c/11/0/0 is missing" in checked.stdout
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert f"resume  {output}.partial" in again.stderr
    assert "of 12 blocks are done" in again.stderr
    assert again.stdout == f"{output}\n"
    assert [entry.name for entry in tmp_path.iterdir()] == [output.name]
    assert subprocess.run([*command[:3], "verify", str(output)], capture_output=True).returncode == 0

"""Stacks of microscopes are read slice by slice: a stack of 50 MB takes a slice and 20 MB of memory."""

import subprocess
import sys

import h5py
import numpy as np
import pytest

from dm_files import image, thumbnail, write_dm
from emd_files import ncem, velox
from ser_files import write_ser
from vendor_tiffs import fei_ini, vendor_tiff

DEPTH, SIDE, BAR = 25, 1024, 24
STACK = np.broadcast_to(np.arange(SIDE, dtype="u2"), (DEPTH, SIDE, SIDE))

READ_ALL = """
import re, sys
from pathlib import Path
from emsr_fast.io.registry import open_source

def peak_kb():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

# what reads the format is loaded before, as it would be for one slice
with open_source(sys.argv[1]) as source:
    source.read(0, slice(0, 1), slice(0, 1))
before = peak_kb()
with open_source(sys.argv[2]) as source:
    assert source.shape == (25, 1024, 1024), source.shape
    for z in range(source.shape[0]):
        row = source.read(z, slice(None), slice(None))[7, :9].tolist()
        assert row == list(range(9)), row
print(peak_kb() - before)
"""


def write_velox(path, stack):
    """Write as Velox does: a chunk for each frame."""
    velox(path, stack[:, :8, :8])
    with h5py.File(path, "a") as file:
        (group,) = file["Data/Image"].values()
        del group["Data"]
        side, depth = stack.shape[1], len(stack)
        data = group.create_dataset("Data", (side, side, depth), "u2", chunks=(side, side, 1))
        for z, plane in enumerate(stack):
            data[..., z] = plane


def write_bars(path, stack):
    bar = np.full((len(stack), BAR, SIDE), 9, "u2")
    whole = np.concatenate((stack, bar), axis=1) if len(stack) > 1 else np.concatenate((stack[0], bar[0]))
    vendor_tiff(path, whole, tags=[(34682, fei_ini(rows=SIDE, columns=SIDE))])


WRITERS = {
    "a.dm4": lambda path, stack: write_dm(path, thumbnail(), image(stack)),
    "a.dm3": lambda path, stack: write_dm(path, thumbnail(), image(stack), version=3),
    "a.ser": write_ser,
    "velox.emd": write_velox,
    "ncem.emd": lambda path, stack: ncem(path, stack, []),
    "bar.tif": write_bars,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_stack_of_50_mb_takes_a_slice_and_20_mb(tmp_path, name):
    (tmp_path / "one").mkdir()
    WRITERS[name](tmp_path / "one" / name, STACK[:1])
    WRITERS[name](tmp_path / name, STACK)
    assert (tmp_path / name).stat().st_size > 50e6
    command = [sys.executable, "-c", READ_ALL, tmp_path / "one" / name, tmp_path / name]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < 2 * SIDE * SIDE + 20e6

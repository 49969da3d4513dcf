"""evaluate holds regions, not slices."""

import subprocess
import sys

import numpy as np
import zarr

PEAK = """
import re, sys
from emsr_fast.evaluate.job import evaluate
done = evaluate(sys.argv[1], sys.argv[2], lr=sys.argv[3], samples=3, region=300)
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1], len(done["slices"]))
"""


def zarr_stack(path, tile, times):
    group = zarr.create_group(str(path), zarr_format=3)
    axes = [{"name": axis, "type": "space"} for axis in "zyx"]
    scale = [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]
    one = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [one]}
    side = tile.shape[0] * times
    array = group.create_array("0", shape=(3, side, side), chunks=(1, 500, 500), dtype="float32")
    for z in range(3):
        array[z] = np.tile(tile, (times, times))
    return path


def test_memory_does_not_grow_with_the_slices(tmp_path):
    peaks = []
    for times in (1, 9):
        tile = np.random.default_rng(0).random((900, 900), dtype=np.float32)
        sr = zarr_stack(tmp_path / f"sr{times}.zarr", tile, times)
        lr = zarr_stack(tmp_path / f"lr{times}.zarr", tile[::3, ::3], times)
        command = [sys.executable, "-c", PEAK, str(sr), str(tmp_path / f"out{times}"), str(lr)]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        peak_kb, rows = map(int, result.stdout.split())
        assert rows == 6
        peaks.append(peak_kb / 1e3)
    # a slice of the larger one has 262 MB; finding the grey range reads them one at a time, measuring reads regions
    assert peaks[1] < peaks[0] + 3 * 262, peaks

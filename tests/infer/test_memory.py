"""Memory: bounded by the plan, whatever the volume's size."""

import json
import subprocess
import sys

_FIRST_BLOCK = """
import json, re, sys, numpy as np, zarr
from emsr_fast import load_model
from emsr_fast.engine import TorchEngine
from emsr_fast.infer.job import infer
path = sys.argv[1]
axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [8, 8, 8]}]}]
ome = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
group = zarr.create_group(f"{path}/in.zarr", attributes={"ome": ome})
array = group.create_array("0", shape=(1000, 10000, 10000), chunks=(64, 256, 256), dtype="u1")
array[0, 0, 0] = 1  # without any chunk it would be refused
TorchEngine(load_model(device="cpu")).run(np.zeros((1, 1, 64, 64), np.float32))
# ru_maxrss would be that of the process which started this one, if larger
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
loaded = peak()
options = {"device": "cpu", "input_voxel": "ignore", "roi": "500,0,0:501,10000,10000"}
# a small enough share to be a single block
done = infer(f"{path}/in.zarr", f"{path}/a.zarr", shard="1/150", **options)
print(json.dumps({"above": peak() - loaded, "blocks": done["blocks"], "tile": done["settings"]["tile"]}))
"""


def test_a_sparse_volume_of_100_gb_needs_no_more_than_a_block_does(tmp_path):
    result = subprocess.run([sys.executable, "-c", _FIRST_BLOCK, str(tmp_path)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["blocks"] == 1
    assert min(found["tile"]) > 500
    assert found["above"] < 1.5e9

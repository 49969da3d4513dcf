"""`max_memory` holds: what the source keeps of decoded chunks is part of it."""

import json
import subprocess
import sys

import numpy as np
import pytest
import zarr

from emsr_fast.errors import UsageError
from emsr_fast.infer.plan import limit_reading
from emsr_fast.io.registry import open_source

_RUN = """
import json, re, sys, numpy as np
from emsr_fast import load_model
from emsr_fast.engine import TorchEngine
from emsr_fast.infer.job import infer
import emsr_fast.infer.prepare, emsr_fast.io.readers.zarr
TorchEngine(load_model(device="cpu")).run(np.zeros((1, 1, 64, 64), np.float32))
# ru_maxrss would be that of the process which started this one, if larger
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
loaded = peak()
infer("in.zarr", "out.ome.zarr", device="cpu", input_voxel="ignore", slices=":1", max_memory="200MB")
print(json.dumps(peak() - loaded))
"""


@pytest.fixture
def deep_chunks():
    """A stack whose chunks have 10 MB, far deeper than the slice that is read, in the working folder."""
    pixels = np.random.default_rng(0).integers(0, 255, (64, 800, 1200)).astype(np.uint8)
    zarr.create_array("in.zarr", data=pixels, chunks=(64, 400, 400))
    return "in.zarr"


def test_a_run_keeps_to_the_memory_that_it_is_given(deep_chunks):
    result = subprocess.run([sys.executable, "-c", _RUN], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) < 200e6


def test_a_source_keeps_no_more_chunks_than_its_share(deep_chunks):
    with open_source(deep_chunks) as source:
        cell = 64 * 400 * 400
        assert limit_reading(source, 200_000_000) == 4 * cell
        for row in (0, 400):
            source.read(0, slice(row, row + 400), slice(0, 1200))
        assert sum(kept.nbytes for kept in source._kept.values()) == cell
        assert limit_reading(source, 10**9) == 125_000_000
        assert limit_reading(source, None) == 0
        with pytest.raises(UsageError, match=r"chunks are 64 x 400 x 400, takes about 41 MB.*give at least 82 MB"):
            limit_reading(source, 80_000_000)

"""Reads volumes as ``inspect`` and ``infer`` do, in a process that may crash; a line for each: see test_volume_fuzz."""

import faulthandler
import re
import sys
from pathlib import Path

from emsr_fast.errors import EmsrError
from emsr_fast.io.registry import open_source
from emsr_fast.io.volume import described_info

SECONDS = 10


def read(path):
    """Read some tiles of some slices; return the shape."""
    with open_source(path) as source:
        assert described_info(source.info)
        depth, height, width = source.shape
        assert min(source.shape) > 0
        for z in {0, depth // 2, depth - 1}:
            for top, left in ((0, 0), (max(0, height - 300), max(0, width - 300))):
                rows, cols = slice(top, min(top + 300, height)), slice(left, min(left + 300, width))
                tile = source.read(z, rows, cols)
                assert tile.shape == (rows.stop - top, cols.stop - left)
                assert tile.dtype == source.dtype
        return source.shape


for path in sys.argv[1:]:
    print("begin", path, flush=True)
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    try:
        print("read", read(path), flush=True)
    except EmsrError as error:
        print("refused", " ".join(str(error).split()), flush=True)
    except Exception as error:
        print("failed", type(error).__name__, " ".join(str(error).split()), flush=True)
        if len(sys.argv) == 2:
            raise
    faulthandler.cancel_dump_traceback_later()
# ru_maxrss would be that of the process which started this one, if larger
peak_kb = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]
print("peak", int(peak_kb) // 1024, "MiB", flush=True)

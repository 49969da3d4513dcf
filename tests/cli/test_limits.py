"""Limits on threads and memory end a command with exit code 5 and one line that names them."""

import os
import resource
import subprocess
import sys

import pytest

from emsr_fast.cli import limits

LIMITED = """
import os, resource, sys
from emsr_fast.cli import main
main(["inspect", "in.tif"])  # imports what is needed: another user may not be allowed to read it
{limit}
sys.exit(main(["inspect", "in.tif"]))
"""
LIMITS = {
    # the superuser has no such limit
    "-u": """
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
if os.geteuid() == 0:
    os.setresuid(54321, 54321, 54321)
""",
    "-v": """
pages = int(open("/proc/self/statm").read().split()[0])
most = pages * resource.getpagesize() + 2**20  # less than a thread's stack
resource.setrlimit(resource.RLIMIT_AS, (most, most))
""",
}


@pytest.mark.parametrize("option", LIMITS)
def test_a_limit_on_threads_or_memory_is_one_line_that_names_it(option):
    code = LIMITED.format(limit=LIMITS[option])
    # more threads than there are stacks kept from before
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "OMP_NUM_THREADS": "64"},
    )
    assert result.returncode == 5
    without_limit, line = result.stderr.splitlines()
    assert "in.tif" in without_limit
    assert line.startswith("error: the system allows no more threads or memory")
    assert f"ulimit {option}" in line


def test_memory_that_lacks_under_a_limit_names_the_limit():
    before = resource.getrlimit(resource.RLIMIT_AS)
    assert limits.told(MemoryError()) is None or before[0] != resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_AS, (2**46, before[1]))
    try:
        assert "ulimit -v" in limits.told(MemoryError())
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)

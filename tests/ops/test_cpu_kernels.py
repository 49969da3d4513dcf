"""What the CPU kernels have in common: the order in which they write, and what they know of the machine."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from emsr_fast import _native, doctor

ROOT = Path(__file__).parents[2]
CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index2")
X86 = platform.machine() == "x86_64"


@pytest.mark.parametrize(("flags", "vectors"), [([], 4), (["-mavx2", "-mfma"], 2), (["-mavx512f"], 1)], ids=str)
def test_what_is_streamed_leaves_by_whole_cache_lines(flags, vectors, tmp_path):
    if flags and not X86:
        pytest.skip("vectors of x86")
    if flags and flags[0][2:] not in Path("/proc/cpuinfo").read_text():
        pytest.skip(f"this processor has no {flags[0][2:]}")
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    sources = [str(ROOT / "tests" / "native" / "lines_on_host.cpp"), str(ROOT / "csrc" / "cpu" / "caches.cpp")]
    includes = [f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'csrc' / 'cpu'}"]
    command = [compiler, "-std=c++17", "-O1", "-w", "-DEMSR_ISA=host", *flags, *includes, *sources]
    done = subprocess.run([*command, "-o", str(tmp_path / "run")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    printed = subprocess.run([str(tmp_path / "run")], capture_output=True, text=True, check=True).stdout
    assert printed == f"36 pixels of {vectors} vectors, whole lines\n"


def test_sizes_of_caches_are_those_that_the_system_reports():
    if reason := _native.why_no_cpu():
        pytest.skip(reason)
    if not (CACHE / "size").exists():
        pytest.skip("the system does not say how large its caches are")
    size, line = ((CACHE / name).read_text().strip() for name in ("size", "coherency_line_size"))
    units = {"K": 1 << 10, "M": 1 << 20}
    in_bytes = int(size[:-1]) * units[size[-1]] if size[-1] in units else int(size)
    assert _native.cpu_caches() == (in_bytes, int(line))
    assert f"L2 cache of {in_bytes >> 10} KiB and cache lines of {line} bytes" in doctor.report()

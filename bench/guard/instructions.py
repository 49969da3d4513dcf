"""Count the instructions that the CPU kernels execute, and compare with the counts kept in instructions.json.

    python bench/guard/instructions.py            exit 1 where a kernel executes 5 % more than was recorded
    python bench/guard/instructions.py --record   keep what is counted now, for the compiler that built the module

Unlike seconds, counts are the same on every machine, however busy. valgrind's callgrind counts inside the kernels only,
on one thread, at small fixed shapes, on the portable and the AVX2 path: it knows no AVX-512. Counts belong to a
compiler; for one without recorded counts there is nothing to compare with, which is said, with how to record them.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).with_name("instructions.json")
ISAS = ("baseline", "avx2") if platform.machine() == "x86_64" else ("baseline",)
MOST = 1.05
_KERNEL = re.compile(r"emsr::\w+_cpu\(")
_HALF = b"\x00\x00\x00\x3f"  # 0.5 as float32


def module_path() -> Path:
    """Return the file of the compiled module that Python would load; torch is not imported for it."""
    spec = importlib.util.find_spec("emsr_fast._C")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the compiled module is not installed")
    return Path(spec.origin)


def compiler_of(module: Path) -> str:
    """Return the compiler that left its name in a compiled module, and for what, such as "GCC 12.2.0, x86_64".

    Of several the newest: libraries that are linked in, CUDA's among them, were made by older ones.
    """
    data = module.read_bytes()
    for name, pattern in (("GCC", rb"GCC: \([^)\0]*\) ([\d.]+)"), ("clang", rb"clang version ([\d.]+)")):
        if found := [version.decode() for version in re.findall(pattern, data)]:
            newest = max(found, key=lambda version: [int(part) for part in version.split(".") if part])
            return f"{name} {newest}, {platform.machine()}"
    return f"unknown compiler, {platform.machine()}"


def count(module: Path, isa: str) -> dict[str, int]:
    """Return instructions per kernel, run under callgrind on ``isa``."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", "--dump-after=emsr::*_cpu(*"]
        command += [sys.executable, "-I", "-S", str(Path(__file__).resolve()), "--drive", str(module)]
        environment = {**os.environ, "EMSR_FAST_CPU_ISA": isa}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"callgrind failed with {done.returncode}: {done.stderr[-800:]}")
        names = done.stdout.splitlines()
        dumps = sorted(Path(folder).glob("out.*"), key=lambda path: int(path.suffix[1:]))
        counts = [_inside_the_kernel(dump.read_text()) for dump in dumps]
    if len(counts) != len(names):
        raise RuntimeError(f"{len(names)} kernels ran, but callgrind saw {len(counts)}: is the module stripped?")
    return dict(zip(names, counts, strict=True))


def _inside_the_kernel(dump: str) -> int:
    """Return the instructions of the one call of a kernel, its callees' too, in a dump that has all since the last."""
    names: dict[str, str] = {}
    inclusive = []
    callee, after_calls = "", False
    for line in dump.splitlines():
        if after_calls:  # position, then the cost of the call
            if _KERNEL.match(callee):
                inclusive.append(int(line.split()[-1]))
            after_calls = False
        elif found := re.match(r"c?fn=(\(\d+\))(?: (.*))?", line):
            name = names.setdefault(found[1], found[2] or "")
            callee = name if line.startswith("c") else callee
        else:
            after_calls = line.startswith("calls=")
    (count,) = inclusive
    return count


def differences(recorded: dict[str, int], counted: dict[str, int]) -> tuple[list[str], bool]:
    """Return a line per kernel, and whether one executes more than ``MOST`` times what was recorded or is not there."""
    lines, failed = [], False
    for name in sorted({*recorded, *counted}):
        before, now = recorded.get(name), counted.get(name)
        if before is None or now is None:
            lines.append(f"{name}: {'no longer counted' if now is None else 'not recorded'}: use --record")
            failed = True
            continue
        more = now > MOST * before
        failed |= more
        note = "  MORE" if more else "  fewer: record again" if now * MOST < before else ""
        lines.append(f"{name}: {before:,} recorded, {now:,} now, {now / before:.3f}{note}")
    return lines, failed


def why_not() -> str | None:
    """Return why nothing can be counted here, or None."""
    if shutil.which("valgrind") is None:
        return "valgrind is not installed"
    try:
        module_path()
    except FileNotFoundError as error:
        return str(error)
    return None


def why_not_compared(compiler: str) -> str | None:
    """Return why counts for ``compiler`` cannot be judged, or None."""
    kept = json.loads(RECORDED.read_text())
    if compiler in kept:
        return None
    known = ", ".join(kept)
    return (
        f"no counts are recorded for {compiler} (only {known}): "
        "on a commit you trust, bench/guard/instructions.py --record"
    )


class _Memory:
    """Aligned float32 memory, as long as this lives."""

    def __init__(self) -> None:
        self._kept: list[Any] = []

    def floats(self, n: int, value: bytes = _HALF) -> int:
        data = bytearray(value * (n + 16))
        view = (ctypes.c_char * len(data)).from_buffer(data)
        self._kept.append(view)
        return (ctypes.addressof(view) + 63) // 64 * 64

    def image(self, c: int, h: int, w: int) -> tuple[int, ...]:
        """Return the view of a (1, c, h, w) image, channels side by side."""
        return (self.floats(c * h * w), 1, c, h, w, c * h * w, 1, w * c, c, 0)

    def integers(self, values: range) -> int:
        array = (ctypes.c_int32 * len(values))(*values)
        self._kept.append(array)
        return ctypes.addressof(array)


def drive(module: Path) -> None:
    """Run every kernel once on one thread; print its name. This is what callgrind watches."""
    spec = importlib.util.spec_from_file_location("_C", module)
    assert spec is not None
    assert spec.loader is not None
    native: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(native)
    memory = _Memory()
    for name, run in _kernels(native, memory).items():
        print(name)
        run()


def _kernels(native: Any, memory: _Memory) -> dict[str, Callable[[], None]]:
    side, c = 32, 64
    x, out, other = (memory.image(c, side, side) for _ in range(3))
    k1, k3, square = (memory.floats(native.conv3x3_packed_size(c, c)) for _ in range(3))
    image, edges = memory.image(1, side, side), memory.image(6, side, side)
    # images of several channels that a kernel writes plane by plane
    planes = (memory.floats(3 * side * side), 1, 3, side, side, 3 * side * side, side * side, side, 1, 0)
    big = (memory.floats(9 * side * side), 1, 1, 3 * side, 3 * side, 9 * side * side, 1, 3 * side, 1, 0)
    qkv, grad_qkv = (memory.image(3 * c, side, side) for _ in range(2))
    weight = (memory.floats(9 * c * c), c, c, 3, 3, 9 * c, 9, 3, 1, 0)
    tokens = memory.integers(range(side))
    weights = tuple(memory.floats(n) for n in (c, c, 3 * c * c, c * c, c, c, c, 2 * c * c, 2 * c, 2 * c * c, c))

    def convolution(inputs: int, outputs: int, activation: int, combine: int) -> Callable[[], None]:
        source = {1: image, 6: edges, c: x}[inputs]
        target = out if outputs == c else memory.image(1, side, side)
        second = other if combine else ()
        packed = memory.floats(native.conv3x3_packed_size(outputs, inputs))
        return lambda: native.conv3x3_cpu(source, target, second, packed, activation, combine, 1)

    return {
        "atrous_details": lambda: native.atrous_details_cpu(image, planes, 3, 1),
        "conv3x3_pack 64 to 64": lambda: native.conv3x3_pack_cpu(weight, square, 1),
        "conv3x3_weight_gradient 64 to 64": lambda: native.conv3x3_weight_gradient_cpu(x, other, weight, 1),
        "conv3x3 1 to 64": convolution(1, c, 0, 0),
        "conv3x3 6 to 64": convolution(6, c, 0, 0),
        "conv3x3 64 to 64, relu": convolution(c, c, 1, 0),
        "conv3x3 64 to 64, residual": convolution(c, c, 0, 1),
        "conv3x3 64 to 64, gate": convolution(c, c, 0, 2),
        "conv3x3 64 to 1": convolution(c, 1, 0, 0),
        "edge_gate 64": lambda: native.edge_gate_cpu(x, out, k1, memory.floats(c * c), memory.floats(c), k3, 1),
        "upsample_to_image 64, x3": lambda: native.upsample_to_image_cpu(x, big, memory.floats(16 * 25 * 16 * c), 3, 1),
        "attend_windows_backward 64": lambda: native.attend_windows_backward_cpu(qkv, other, grad_qkv, 16, 1),
        "window_attention 64": lambda: native.window_attention_cpu(
            x, out, weights, 16, 2 * c, (side, side, *[tokens] * 4), 1
        ),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.drive:
        drive(arguments.drive)
        return 0
    if reason := why_not():
        print(f"instructions: skipped, {reason}")
        return 0
    module = module_path()
    compiler = compiler_of(module)
    if not arguments.record and (reason := why_not_compared(compiler)):
        print(f"instructions: skipped, {reason}")
        return 0
    counted = {isa: count(module, isa) for isa in ISAS}
    if arguments.record:
        kept = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
        RECORDED.write_text(json.dumps({**kept, compiler: counted}, indent=1, sort_keys=True) + "\n")
        return 0
    recorded, any_failed = json.loads(RECORDED.read_text())[compiler], False
    for isa in ISAS:
        lines, failed = differences(recorded[isa], counted[isa])
        any_failed |= failed
        print(f"{compiler}, {isa}", *lines, sep="\n  ")
    return int(any_failed)


if __name__ == "__main__":
    sys.exit(main())

"""Triton convolutions compiled ahead of time: registers, shared memory, tensor cores."""

import importlib.util
import json
import re

import pytest

from python_for_triton import in_python

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")

COMPILE = """
import json, pathlib, subprocess, sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from emsr_fast.kernels.triton import conv3x3, upsample_to_image

cubin, more = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
CUOBJDUMP = pathlib.Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
POINTER = [["tt.divisibility", 16]]


def compiled(name, kernel, constants, dtype, capability, **types):
    options = {key: constants.pop(key) for key in ("num_warps", "num_stages") if key in constants}
    signature, aligned = {}, {}
    for i, argument in enumerate(kernel.arg_names):
        signature[argument] = "constexpr" if argument in constants else "i32"
        if argument.endswith("_ptr"):
            signature[argument], aligned[i,] = types.get(argument, f"*{dtype}"), POINTER
    target = GPUTarget("cuda", 10 * capability[0] + capability[1], 32)
    binary = triton.compile(ASTSource(kernel, signature, constants, aligned), target=target, options=options | more)
    # triton itself learns of spills only when a GPU loads the kernel
    cubin.write_bytes(binary.asm["cubin"])
    usage = subprocess.run([CUOBJDUMP, "-res-usage", cubin], capture_output=True, text=True, check=True).stdout
    name = f"{name} {dtype} sm_{capability[0]}{capability[1]}"
    print(json.dumps({"name": name, "usage": usage, "shared": binary.metadata.shared, "ptx": binary.asm["ptx"]}))


widths = json.loads(sys.argv[3])
for capability in ((8, 0), (9, 0)):
    for width in widths:
        for c, dtype, activation, second in (
            (64, "fp16", "leaky_relu", "gate"), (64, "bf16", "leaky_relu", "gate"), (64, "fp16", "ask", ""),
            (64, "fp16", "none", "times"), (32, "fp16", "relu", "residual"), (16, "fp16", "ask", ""),
        ):
            settings = conv3x3.strip_settings(width, c, c, capability)
            settings |= {"ACTIVATION": activation, "SECOND": second}
            name = f"strip {c} {activation} {second} {width}"
            compiled(name, conv3x3.conv3x3_strip_kernel, settings, dtype, capability)
    columns, warps = conv3x3.strip_of(1000, capability)
    sizes = {"C": 64, "SCALE": 3, "PHASES": upsample_to_image.PHASES}
    if widths[1:]:
        for inputs in (1, 6, 14):
            settings = conv3x3.few_settings(inputs, 64) | {"ACTIVATION": "leaky_relu", "SECOND": "gate"}
            compiled(f"few {inputs}", conv3x3.conv3x3_few_kernel, settings, "fp16", capability)
        settings = {"C_IN": 64, "ACTIVATION": "leaky_relu", "SECOND": "gate", "BLOCK_W": conv3x3.ONE_COLUMNS}
        compiled("one", conv3x3.conv3x3_one_kernel, settings, "fp16", capability)
        settings = {**sizes, "BLOCK_W": columns, "num_warps": warps, "num_stages": 2}
        compiled("upsample strip", upsample_to_image.upsample_to_image_strip_kernel, settings, "fp16", capability)
        last = upsample_to_image.upsample_to_image_last_kernel
        compiled("upsample last", last, dict(sizes), "fp16", capability, both_ptr="*fp32")
        fold = upsample_to_image.upsample_to_image_fold_kernel
        compiled("upsample fold", fold, dict(sizes), "fp16", capability, both_ptr="*fp32")
        settings = {**sizes, "BLOCK": upsample_to_image.BORDER, "num_warps": 2}
        compiled("upsample border", upsample_to_image.upsample_to_image_border_kernel, settings, "fp16", capability)
"""
# of a kernel's name above, the most of sm_80 and sm_90
MOST_REGISTERS = {"strip 64": 248, "strip 32": 168, "strip 16": 168, "few": 128, "one": 128, "upsample": 232}
MOST_SHARED = {"sm_80": 163 * 1024, "sm_90": 227 * 1024}


def usage_of(folder, widths, **options):
    """Return registers, bytes spilled, shared memory and PTX of each kernel on sm_80 and sm_90."""
    usage = {}
    arguments = (json.dumps(options), json.dumps(widths))
    lines = in_python(COMPILE, folder / "kernel.cubin", *arguments, interpret=False).splitlines()
    for kernel in map(json.loads, lines):
        # what does not fit the registers goes to the stack
        (used,) = re.findall(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", kernel["usage"])
        registers, stack, local = map(int, used)
        usage[kernel["name"]] = (registers, stack + local, kernel["shared"], kernel["ptx"])
    return usage


@pytest.fixture(scope="module")
def usage(tmp_path_factory):
    return usage_of(tmp_path_factory.mktemp("compiled"), [1000, 40])


@pytest.mark.exhaustive
def test_kernels_compile_ahead_of_time_without_spills(usage):
    assert len(usage) == 2 * (2 * 6 + 8)  # architectures, widths, kernels
    assert {name: spilled for name, (_, spilled, _, _) in usage.items() if spilled} == {}
    for name, (registers, _, shared, _) in usage.items():
        assert registers <= next(most for kind, most in MOST_REGISTERS.items() if name.startswith(kind)), name
        # a block can have no more
        assert shared <= MOST_SHARED[name.split()[-1]], name


@pytest.mark.exhaustive
def test_products_run_on_tensor_cores(usage):
    for name, (*_, ptx) in usage.items():
        if name.startswith("strip"):
            instruction = "wgmma.mma_async" if name.endswith("sm_90") else "mma.sync"
            c = int(name.split()[1])
            # nine taps of c channels, 16 a step
            assert ptx.count(instruction) >= 9 * c // 16, name


@pytest.mark.exhaustive
def test_the_next_rows_are_on_their_way_while_products_run(usage):
    for name, (*_, ptx) in usage.items():
        if name.startswith(("strip 64", "upsample strip")):
            assert "cp.async" in ptx, name


@pytest.mark.exhaustive
def test_a_spill_is_seen(tmp_path):
    found = usage_of(tmp_path, [1000], maxnreg=64)
    assert max(spilled for _, spilled, _, _ in found.values()) > 0

"""Triton kernels without a GPU: interpreted against float64, and compiled ahead of time without spills."""

import importlib.util
import json
import re

import pytest
import torch

from emsr_fast.reference import atrous as reference
from python_for_triton import in_python

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")

SHAPES = [(1, 1, 1, 1), (2, 2, 1, 5), (1, 1, 7, 64), (1, 1, 33, 97), (1, 1, 10, 140)]
HALVES = [torch.float16, torch.bfloat16]
# 4 warps of a program: eight programs fill an SM
MOST_REGISTERS = 64
DEFINITIONS = {
    "atrous_details": reference.atrous_details,
    "atrous_details_backward": reference.atrous_details_backward,
}
INTERPRET = """
import sys
import torch
from emsr_fast.kernels.triton import atrous

cases = torch.load(sys.argv[1])
for operator, x, out, levels in cases:
    getattr(atrous, operator)(x, out, levels)
torch.save([out for _, _, out, _ in cases], sys.argv[1])
"""
COMPILE = """
import itertools
import json
import pathlib
import subprocess
import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from emsr_fast.kernels.triton import atrous

KERNELS = [
    (atrous.atrous_details_kernel, {"HAS_SMOOTH": True, "HAS_DETAIL": True}),
    (atrous.atrous_adjoint_kernel, {"NEGATED": False, "HAS_OWN": True, "HAS_FINER": True}),
]
CUOBJDUMP = pathlib.Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
cubin, options, dtypes = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:]
for (kernel, choices), dtype, sm in itertools.product(KERNELS, dtypes, (80, 90)):
    constants = {**choices, **atrous.B3_SPLINE, "ROWS": atrous.ROWS, "BLOCK": atrous.BLOCK, "x_sw": 1, "out_sw": 1}
    signature = {}
    for name in kernel.arg_names:
        if name in constants:
            signature[name] = "constexpr"
        elif name.endswith("_ptr"):
            signature[name] = "*fp32" if name in ("x_ptr", "smooth_ptr") else "*" + dtype
        else:
            signature[name] = "i32" if name in ("C", "H", "W", "step") else "i64"
    target = GPUTarget("cuda", sm, 32)
    binary = triton.compile(ASTSource(kernel, signature, constants), target=target, options=options)
    # triton itself learns of spills only when a GPU loads the kernel
    cubin.write_bytes(binary.asm["cubin"])
    usage = subprocess.run([CUOBJDUMP, "-res-usage", cubin], capture_output=True, text=True, check=True).stdout
    print(json.dumps({"name": f"{kernel.__name__} {dtype} sm_{sm}", "usage": usage}))
"""


def case(operator, x, levels, dtype=torch.float32):
    """Return a call of a launcher: operator, input, output, levels."""
    b, c, h, w = x.shape
    channels = c * levels if operator == "atrous_details" else c // levels
    # NaN in the output: a pixel that is not written shows
    return operator, x.to(dtype), torch.full((b, channels, h, w), float("nan"), dtype=dtype), levels


def random_case(operator, shape, levels, dtype):
    b, c, h, w = shape
    return case(operator, torch.rand(b, c if operator == "atrous_details" else c * levels, h, w), levels, dtype)


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    """Return all cases with the outputs of the interpreter, run in one process because importing triton takes long."""
    torch.manual_seed(0)
    cases = {}
    for operator in DEFINITIONS:
        for shape in SHAPES:
            cases[operator, shape] = random_case(operator, shape, 3, torch.float32)
        for dtype in HALVES:
            cases[operator, dtype] = random_case(operator, (1, 1, 9, 70), 3, dtype)
        for levels in (1, 2, 4):
            cases[operator, levels] = random_case(operator, (1, 1, 19, 40), levels, torch.float32)
        strided = torch.rand(1, 18, 40, 6).permute(0, 3, 2, 1)[:, ::2, ::3, 1:]
        cases[operator, "strided"] = case(operator, strided, 3)
        cases[operator, "empty"] = case(operator, torch.rand(0, 3, 5, 5), 3)
    path = tmp_path_factory.mktemp("interpreted") / "cases.pt"
    torch.save(list(cases.values()), path)
    in_python(INTERPRET, path, interpret=True)
    outputs = torch.load(path)
    return {
        key: (operator, x, out, levels)
        for (key, (operator, x, _, levels)), out in zip(cases.items(), outputs, strict=True)
    }


def assert_matches_definition(operator, x, out, levels):
    exact, plain = DEFINITIONS[operator](x.double(), levels), DEFINITIONS[operator](x, levels)
    # no worse than twice the rounding error of the same formula in plain PyTorch
    assert (out - exact).abs().max() <= 2 * (plain - exact).abs().max() + 1e-7


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("operator", DEFINITIONS)
def test_three_levels_match_the_definition(interpreted, operator, shape):
    assert_matches_definition(*interpreted[operator, shape])


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("operator", DEFINITIONS)
def test_half_precision_is_summed_in_float32(interpreted, operator, dtype):
    assert_matches_definition(*interpreted[operator, dtype])


@pytest.mark.parametrize("levels", [1, 2, 4])
@pytest.mark.parametrize("operator", DEFINITIONS)
def test_any_number_of_levels_matches_the_definition(interpreted, operator, levels):
    assert_matches_definition(*interpreted[operator, levels])


@pytest.mark.parametrize("operator", DEFINITIONS)
def test_any_strides_match_the_definition(interpreted, operator):
    assert_matches_definition(*interpreted[operator, "strided"])


@pytest.mark.parametrize("operator", DEFINITIONS)
def test_an_empty_batch_is_left_alone(interpreted, operator):
    assert interpreted[operator, "empty"][2].numel() == 0


def registers_and_bytes_spilled(folder, dtypes, options):
    """Return registers and bytes spilled of each kernel, for each dtype on sm_80 and sm_90."""
    lines = in_python(COMPILE, folder / "kernel.cubin", json.dumps(options), *dtypes, interpret=False).splitlines()
    usage = {}
    for compiled in map(json.loads, lines):
        # what does not fit the registers goes to the stack
        (used,) = re.findall(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", compiled["usage"])
        registers, stack, local = map(int, used)
        usage[compiled["name"]] = (registers, stack + local)
    assert len(usage) == 2 * len(dtypes) * 2  # kernels, architectures
    return usage


@pytest.mark.exhaustive
def test_kernels_compile_ahead_of_time_without_spills(tmp_path):
    usage = registers_and_bytes_spilled(tmp_path, ["fp32", "fp16", "bf16"], {})
    assert {name: spilled for name, (_, spilled) in usage.items() if spilled} == {}
    assert {name: registers for name, (registers, _) in usage.items() if registers > MOST_REGISTERS} == {}


@pytest.mark.exhaustive
def test_a_spill_is_seen(tmp_path):
    usage = registers_and_bytes_spilled(tmp_path, ["fp32"], {"maxnreg": 24})
    assert min(spilled for _, spilled in usage.values()) > 0

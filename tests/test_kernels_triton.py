"""Triton kernels without a GPU: interpreted against float64, and compiled ahead of time without spills."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from emsr_fast.reference import atrous as reference

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")

SHAPES = [(1, 1, 1, 1), (2, 1, 1, 5), (1, 3, 7, 64), (1, 2, 33, 97), (1, 1, 17, 140)]
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
import itertools, json, pathlib, subprocess, sys
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource
from emsr_fast.kernels.triton import atrous

pathlib.Path(sys.argv[1]).mkdir(exist_ok=True)
TILE = {"ROWS": atrous.ROWS, "BLOCK": atrous.BLOCK}
KERNELS = [
    (atrous.atrous_details_kernel, {"HAS_SMOOTH": True, "HAS_DETAIL": True, **atrous.B3_SPLINE}),
    (atrous.atrous_adjoint_kernel, {"NEGATED": False, "HAS_OWN": True, "HAS_FINER": True, **atrous.B3_SPLINE}),
]
for (kernel, choices), dtype, sm in itertools.product(KERNELS, ("fp32", "fp16", "bf16"), (80, 90)):
    constants = {**choices, **TILE, "x_sw": 1, "out_sw": 1}
    pointers = {"x_ptr": "*fp32", "smooth_ptr": "*fp32"}
    signature = {
        name: "constexpr" if name in constants
        else pointers.get(name, "*" + dtype) if name.endswith("_ptr")
        else "i32" if name in ("C", "H", "W", "step") else "i64"
        for name in kernel.arg_names
    }
    target = GPUTarget("cuda", sm, 32)
    binary = triton.compile(ASTSource(kernel, signature, constants), target=target)
    ptx = pathlib.Path(sys.argv[1]) / "kernel.ptx"
    ptx.write_text(binary.asm["ptx"])
    name = "sm_90a" if sm == 90 else f"sm_{sm}"
    command = [get_ptxas(sm).path, "-v", f"--gpu-name={name}", str(ptx), "-o", str(ptx) + ".cubin"]
    log = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    print(json.dumps({"kernel": kernel.__name__, "dtype": dtype, "sm": sm, "cubin": len(binary.asm["cubin"]), "log": log}))
"""


def in_python(code: str, path: Path, *, interpret: bool) -> str:
    """Run ``code`` on ``path`` in a Python of its own: triton reads TRITON_INTERPRET when it is imported."""
    environment = {**os.environ, "TRITON_INTERPRET": str(int(interpret)), "TRITON_CACHE_DIR": str(path.parent / "cache")}
    # outside the repository, whose emsr_fast/ would hide the installed package
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], env=environment, cwd=path.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


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
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            for shape in SHAPES:
                cases[operator, dtype, shape] = random_case(operator, shape, 3, dtype)
        for levels in (1, 2, 4):
            cases[operator, levels] = random_case(operator, (1, 2, 19, 40), levels, torch.float32)
        strided = torch.rand(1, 30, 40, 6).permute(0, 3, 2, 1)[:, :, 1:, ::2]
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
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("operator", DEFINITIONS)
def test_three_levels_match_the_definition(interpreted, operator, dtype, shape):
    assert_matches_definition(*interpreted[operator, dtype, shape])


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


def test_kernels_compile_ahead_of_time_without_spills(tmp_path):
    lines = in_python(COMPILE, tmp_path / "compiled", interpret=False).splitlines()
    assert len(lines) == 2 * 3 * 2  # kernels, dtypes, architectures
    for compiled in map(json.loads, lines):
        spilled = re.findall(r"(\d+) bytes (?:stack frame|spill stores|spill loads)", compiled["log"])
        assert len(spilled) == 3, compiled
        assert set(spilled) == {"0"}, compiled
        (registers,) = re.findall(r"Used (\d+) registers", compiled["log"])
        assert int(registers) <= 128, compiled
        assert compiled["cubin"] > 0

"""Triton convolutions without a GPU: interpreted against float64, compiled ahead of time, launch geometry."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from emsr_fast.reference import conv3x3 as conv3x3_reference
from emsr_fast.reference import edge_gate as edge_gate_reference
from emsr_fast.reference import upsample_to_image as upsample_reference
from sweeps import quick_of

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")

REFERENCES = {
    "conv3x3": conv3x3_reference.conv3x3,
    "edge_gate": edge_gate_reference.edge_gate,
    "upsample_to_image": upsample_reference.upsample_to_image,
}
INTERPRET = """
import importlib, sys
import torch

calls = torch.load(sys.argv[1])
for operator, out, arguments in calls:
    launcher = getattr(importlib.import_module(f"emsr_fast.kernels.triton.{operator}"), operator)
    launcher(arguments[0], out, *arguments[1:])
torch.save([out for _, out, _ in calls], sys.argv[1])
"""
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
# triton's own way from a launch to machine code, with an H100 that is not there and without the launch at the end
LAUNCH = """
import importlib, sys
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction


class Absent:
    get_current_device = get_current_stream = lambda *_: 0
    get_current_target = lambda _: GPUTarget("cuda", 90, 32)


def compile_only(kernel, *arguments, grid, warmup, **settings):
    print(kernel.fn.__name__)
    return launch(kernel, *arguments, grid=grid, warmup=True, **settings)


driver.set_active(Absent())
launch, JITFunction.run = JITFunction.run, compile_only
for operator, out, arguments in torch.load(sys.argv[1]):
    launcher = getattr(importlib.import_module(f"emsr_fast.kernels.triton.{operator}"), operator)
    launcher(arguments[0], out, *arguments[1:])
"""
# of a kernel's name above, the most of sm_80 and sm_90
MOST_REGISTERS = {"strip 64": 248, "strip 32": 168, "strip 16": 168, "few": 128, "one": 128, "upsample": 232}
MOST_SHARED = {"sm_80": 163 * 1024, "sm_90": 227 * 1024}


def in_python(code: str, folder: Path, *arguments: str, interpret: bool) -> str:
    """Run ``code`` in a Python of its own: triton reads TRITON_INTERPRET when it is imported."""
    settings = {"TRITON_INTERPRET": str(int(interpret)), "TRITON_CACHE_DIR": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | settings | {"TRITON_DEFAULT_FP_FUSION": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def last(t):
    return t.contiguous(memory_format=torch.channels_last)


def weight(outputs, inputs, dtype):
    return last((torch.randn(outputs, inputs, 3, 3) * (9 * inputs) ** -0.5).to(dtype))


def poisoned(b, c, h, w, dtype):
    # NaN in the output: a pixel that is not written shows
    return last(torch.full((b, c, h, w), float("nan"), dtype=dtype))


def convolution(channels, size, epilogue="none", dtype=torch.float16, batch=2):
    """Return operator, output, the launcher's arguments and the reference's."""
    inputs, outputs = channels
    activation, _, second = epilogue.partition("+")
    x, w = last(torch.randn(batch, inputs, *size).to(dtype)), weight(outputs, inputs, dtype)
    other = last(torch.randn(batch, outputs, *size).to(dtype)) if second else None
    residual, gate = (other if second == name else None for name in ("residual", "gate"))
    launched = (x, other, w, activation, second == "gate")
    return "conv3x3", poisoned(batch, outputs, *size, dtype), launched, (x, w, activation, residual, gate)


def gating(c, size, dtype=torch.float16):
    x, k1, k3 = last(torch.randn(2, c, *size).to(dtype)), weight(c, c, dtype), weight(c, c, dtype)
    k2, bias = (torch.randn(c, c, 1, 1) * c**-0.5).to(dtype), torch.randn(c).to(dtype)
    scratch = poisoned(2, c, *size, dtype)
    return "edge_gate", poisoned(2, c, *size, dtype), (x, scratch, k1, k2, bias, k3), (x, k1, k2, bias, k3)


def upsampling_by(scale, c, size, dtype=torch.float16):
    x = last(torch.randn(2, c, *size).to(dtype))
    up, out = weight(scale * scale * c, c, dtype).contiguous(), weight(1, c, dtype).contiguous()
    image = torch.full((2, 1, scale * size[0], scale * size[1]), float("nan"), dtype=dtype)
    return "upsample_to_image", image, (x, last(up), out, scale), (x, up, out, scale)


def strided(dtype=torch.float16):
    operator, out, (x, *launched), (_, *reference) = convolution((6, 16), (9, 21), dtype=dtype)
    wide = torch.full((2, 9, 42, 10), float("nan"), dtype=dtype)
    wide[:, 1:7, ::2, 1:] = x.transpose(2, 3)
    same = wide[:, 1:7, ::2, 1:].transpose(2, 3)
    return operator, out, (same, *launched), (same, *reference)


SIZES = [(1, 1), (1, 5), (5, 4), (3, 129), (19, 37)]
EPILOGUES = ["relu", "leaky_relu", "none+residual", "relu+residual", "leaky_relu+residual", "none+gate"]
CASES = {
    **{f"64 to 64 {size}": (convolution, (64, 64), size) for size in SIZES},
    **{f"{channels}": (convolution, channels, (10, 66)) for channels in ((16, 16), (32, 48), (16, 128), (64, 32))},
    **{f"{e} {c}": (convolution, c, (6, 9), e) for e in EPILOGUES for c in ((16, 16), (6, 16), (16, 1))},
    **{f"{c} {size}": (convolution, c, size) for c in ((1, 64), (64, 1)) for size in SIZES},
    "(14, 32)": (convolution, (14, 32), (5, 70)),
    "strided": (strided,),
    **{f"edge gate {c} {size}": (gating, c, size) for c in (16, 64) for size in ((1, 1), (9, 70))},
    **{f"upsample {s} {size}": (upsampling_by, s, 16, size) for s in (2, 3, 4) for size in ((1, 1), (7, 5))},
    **{f"upsample 64 {size}": (upsampling_by, 3, 64, size) for size in ((1, 7), (6, 1), (2, 3), (7, 131))},
    # the interpreter multiplies bfloat16 as if it were integers: only what does without products of matrices
    "bfloat16 one": (convolution, (32, 1), (9, 20), "relu", torch.bfloat16),
    "empty": (convolution, (16, 16), (4, 4), "none", torch.float16, 0),
}


# every kernel, epilogue and way to lie in memory once, in seconds; make test-all interprets them all
QUICK = [
    *("64 to 64 (5, 4)", "(1, 64) (1, 5)", "(64, 1) (5, 4)", "strided", "bfloat16 one"),
    *("none+gate (16, 16)", "relu+residual (6, 16)", "leaky_relu (16, 1)"),
    *("edge gate 16 (1, 1)", "upsample 2 (1, 1)", "upsample 3 (7, 5)", "upsample 4 (1, 1)"),
]


@pytest.fixture(scope="module")
def interpreted(request, tmp_path_factory):
    """Return the cases of the tests to be run with the interpreter's outputs.

    They run in a few processes, because importing triton takes long.
    """
    torch.manual_seed(0)
    cases = {name: make(*arguments) for name, (make, *arguments) in CASES.items()}
    here = [item for item in request.session.items if item.module is request.module and hasattr(item, "callspec")]
    wanted = {"empty", *(item.callspec.params["name"] for item in here if "name" in item.callspec.params)}
    cases = {name: case for name, case in cases.items() if name in wanted}

    def outputs_of(names):
        folder = tmp_path_factory.mktemp("interpreted")
        torch.save([cases[name][:3] for name in names], folder / "calls.pt")
        in_python(INTERPRET, folder, str(folder / "calls.pt"), interpret=True)
        return dict(zip(names, torch.load(folder / "calls.pt"), strict=True))

    processes = min(4, os.cpu_count() or 1)
    with ThreadPoolExecutor(processes) as pool:
        parts = pool.map(outputs_of, [list(cases)[i::processes] for i in range(processes)])
        outputs = {name: out for part in parts for name, out in part.items()}
    return {name: (case[0], outputs[name], case[3]) for name, case in cases.items()}


def doubled(arguments):
    return [a.double() if isinstance(a, torch.Tensor) else a for a in arguments]


@pytest.mark.parametrize("name", quick_of([name for name in CASES if name != "empty"], QUICK))
def test_matches_the_definition(interpreted, name):
    operator, out, arguments = interpreted[name]
    exact, plain = REFERENCES[operator](*doubled(arguments)), REFERENCES[operator](*arguments)
    # no worse than twice the rounding error of the same formula in plain PyTorch, but for the rounding of the result
    rounding = torch.finfo(out.dtype).eps / 2 * exact.abs().max()
    assert (out - exact).abs().max() <= 2 * (plain - exact).abs().max() + rounding


def test_an_empty_batch_is_left_alone(interpreted):
    assert interpreted["empty"][1].shape == (0, 16, 4, 4)


@pytest.mark.exhaustive
def test_launches_find_their_way_to_machine_code(tmp_path):
    cases = [convolution((64, 64), (9, 130), e) for e in ("relu", "none+gate")]
    cases += [convolution(c, (1, 7)) for c in ((1, 64), (64, 1), (6, 16))] + [strided(), gating(64, (9, 130))]
    cases += [upsampling_by(3, 64, (9, 40))]
    torch.save([(operator, out, launched) for operator, out, launched, _ in cases], tmp_path / "calls.pt")
    launched = in_python(LAUNCH, tmp_path, str(tmp_path / "calls.pt"), interpret=False).split()
    assert len(launched) == 2 + 4 + 2 + 4


def usage_of(folder, widths, **options):
    """Return registers, bytes spilled, shared memory and PTX of each kernel on sm_80 and sm_90."""
    usage = {}
    arguments = (str(folder / "kernel.cubin"), json.dumps(options), json.dumps(widths))
    for kernel in map(json.loads, in_python(COMPILE, folder, *arguments, interpret=False).splitlines()):
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

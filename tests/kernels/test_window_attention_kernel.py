"""The window attention kernels without a GPU: the CUDA warps run on the CPU, the Triton program in its interpreter."""

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from emsr_fast.reference import window_attention as reference
from python_for_triton import in_python

ROOT = Path(__file__).resolve().parents[2]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
# (channels, image): both wanting and whole windows, several blocks and warps, an odd number of windows
CASES = [(16, (2, 1, 1)), (16, (1, 3, 5)), (16, (2, 17, 31)), (32, (1, 4, 8)), (64, (2, 5, 9))]


def parameters(channels, dtype, hidden=None):
    """Return random parameters of the block, in the operator's order."""
    c, hidden = channels, hidden or 2 * channels
    shapes = ((c,), (c,), (3 * c, c), (c, c), (c,), (c,), (c,), (hidden, c), (hidden,), (c, hidden), (c,))
    tensors = [torch.randn(shape) * 0.3 for shape in shapes]
    tensors[0] += 1
    tensors[5] += 1
    return [t.to(dtype) for t in tensors]


def image(channels, shape, dtype):
    """Return random features (B, C, H, W), channels last."""
    return torch.randn(shape[0], *shape[1:], channels).to(dtype).permute(0, 3, 1, 2)


def assert_matches_definition(out, x, weights, heads, factor=2):
    exact = reference.window_attention(x.double(), *(w.double() for w in weights), heads)
    plain = reference.window_attention(x, *weights, heads)
    # no worse than twice the rounding error of the same formula in plain PyTorch
    assert (out - exact).abs().max() <= factor * (plain - exact).abs().max() + 1e-7


@pytest.fixture(scope="module")
def on_host(tmp_path_factory):
    """Return a function that runs the kernel's warps on the CPU, lane by lane."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler: the warps cannot be run on the CPU")
    folder = tmp_path_factory.mktemp("window_attention_on_host")
    includes = [f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'kernels' / 'cuda'}"]
    source = ROOT / "tests" / "native" / "window_attention_on_host.cpp"
    # the sanitizer sees any access outside image or shared memory; a compiler without it still shows wrong values
    for sanitizer in (["-fsanitize=address"], []):
        command = [compiler, "-std=c++17", "-O1", *sanitizer, *includes, str(source), "-o", str(folder / "run")]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr

    def run(x, weights, order="forward", blocks=2, warps=3):
        storage = x.as_strided((x.untyped_storage().nbytes() // x.element_size(),), (1,), 0)
        for name, tensor in (("in", storage), ("weights", torch.cat([w.flatten() for w in weights]))):
            tensor.contiguous().view(torch.uint8).numpy().tofile(folder / name)
        b, c, h, w = x.shape
        sizes = [order, blocks, warps, c // 4, weights[7].shape[0]]
        files = [folder / "weights", folder / "in", folder / "out"]
        layout = [*x.shape, *x.stride(), x.storage_offset()]
        arguments = [str(x.dtype).removeprefix("torch."), *sizes, *files, *layout]
        done = subprocess.run([str(folder / "run"), *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        out = torch.frombuffer(bytearray((folder / "out").read_bytes()), dtype=x.dtype)
        return out.reshape(b, h, w, c).permute(0, 3, 1, 2)

    return run


@pytest.mark.parametrize(("channels", "shape"), CASES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_warps_match_the_definition(on_host, dtype, channels, shape):
    torch.manual_seed(0)
    x, weights = image(channels, shape, dtype), parameters(channels, dtype)
    assert_matches_definition(on_host(x, weights), x, weights, channels // 4)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_warps_take_rows_and_columns_out_of_a_larger_image(on_host, dtype):
    torch.manual_seed(0)
    # a NaN beside each pixel read: it would show
    canvas = torch.full((2, 12, 19, 16), float("nan"), dtype=dtype)
    x = canvas[:, 2:9, 3:17:2].permute(0, 3, 1, 2)
    x.copy_(torch.randn(x.shape))
    weights = parameters(16, dtype, hidden=64)
    assert_matches_definition(on_host(x, weights), x, weights, 4)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_order_of_lanes_and_the_shares_of_warps_do_not_matter(on_host, dtype):
    torch.manual_seed(0)
    x, weights = image(16, (1, 10, 13), dtype), parameters(16, dtype)
    expected = on_host(x, weights)
    assert torch.equal(on_host(x, weights, order="reverse"), expected)
    # one warp for all steps, and more warps than steps
    assert torch.equal(on_host(x, weights, blocks=1, warps=1), expected)
    assert torch.equal(on_host(x, weights, blocks=4, warps=12), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_large_scores_and_not_a_number(on_host, dtype):
    torch.manual_seed(0)
    x, weights = image(16, (1, 4, 12), dtype), parameters(16, dtype)
    weights[2] *= 50
    assert torch.isfinite(on_host(x, weights)).all()
    x[0, 3, 1, 5] = float("nan")  # in the second of three windows
    assert on_host(x, weights).isnan().any(dim=1)[0, 0].tolist() == [4 <= col < 8 for col in range(12)]


needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
TRITON_CASES = [(16, 4, (2, 1, 1)), (16, 4, (1, 3, 5)), (16, 1, (2, 17, 31)), (64, 16, (1, 3, 5)), (32, 4, (0, 4, 4))]
INTERPRET = """
import sys
import torch
from triton.runtime import interpreter

def create_dot(self, a, b, d, *rest, plain=interpreter.InterpreterBuilder.create_dot):
    # the interpreter keeps bfloat16 as integers, and multiplies those
    def widened(t):
        if t.dtype.scalar.name != "bf16":
            return t
        return interpreter.TensorHandle((t.data.astype("uint32") << 16).view("float32"), interpreter.tl.float32)
    return plain(self, widened(a), widened(b), d, *rest)

interpreter.InterpreterBuilder.create_dot = create_dot
from emsr_fast.kernels.triton import window_attention

cases = torch.load(sys.argv[1])
for x, out, weights, heads in cases:
    window_attention.window_attention(x, out, weights, heads)
torch.save([out for _, out, _, _ in cases], sys.argv[1])
"""
COMPILE = """
import itertools
import json
import pathlib
import subprocess
import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from emsr_fast.kernels.triton import window_attention

CUOBJDUMP = pathlib.Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
kernel, cubin = window_attention.window_attention_kernel, pathlib.Path(sys.argv[1])
for (name, dtype), sm in itertools.product(DTYPES.items(), (80, 90)):
    if (name, sm) == ("bf16", 80):
        continue  # as fp16, and compiling takes seconds
    size = window_attention.program_size(dtype)
    constants = {"C": 64, "HIDDEN": 128, "HEAD": 4, "WINDOWS": size["WINDOWS"]}
    kinds = {"H": "i32", "W": "i32", "windows": "i32", **dict.fromkeys(constants, "constexpr")}
    signature = {n: "*" + name if n.endswith("_ptr") else kinds.get(n, "i64") for n in kernel.arg_names}
    options = {"num_warps": size["num_warps"], **json.loads(sys.argv[2])}
    binary = triton.compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", sm, 32), options=options)
    cubin.write_bytes(binary.asm["cubin"])
    usage = subprocess.run([CUOBJDUMP, "-res-usage", cubin], capture_output=True, text=True, check=True).stdout
    print(json.dumps({"name": f"{name} sm_{sm}", "usage": usage}))
"""


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    """Return all cases with the outputs of the interpreter, run in one process because importing triton takes long."""
    torch.manual_seed(0)
    cases = {}
    for dtype in DTYPES:
        for channels, heads, shape in TRITON_CASES:
            x = image(channels, shape, dtype)
            out = torch.full_like(x, float("nan"))
            cases[dtype, channels, shape] = (x, out, parameters(channels, dtype), heads)
    path = tmp_path_factory.mktemp("interpreted") / "cases.pt"
    torch.save(list(cases.values()), path)
    in_python(INTERPRET, path, interpret=True)
    outputs = torch.load(path)
    return {
        key: (out, x, weights, heads) for (key, (x, _, weights, heads)), out in zip(cases.items(), outputs, strict=True)
    }


@needs_triton
@pytest.mark.parametrize(("channels", "heads", "shape"), TRITON_CASES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_triton_matches_the_definition(interpreted, dtype, channels, heads, shape):
    case = interpreted[dtype, channels, shape]
    # the interpreter cuts bfloat16 off where a GPU rounds, which errs up to twice as much
    factor = 4 if dtype == torch.bfloat16 else 2
    if shape[0] > 0:
        assert_matches_definition(*case, factor)


@pytest.mark.exhaustive
@needs_triton
def test_triton_compiles_ahead_of_time_without_spills(tmp_path):
    lines = in_python(COMPILE, tmp_path / "kernel.cubin", "{}", interpret=False).splitlines()
    most = {"sm_80": 224, "sm_90": 176}
    assert len(lines) == 5
    for compiled in map(json.loads, lines):
        (used,) = re.findall(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", compiled["usage"])
        registers, stack, local = map(int, used)
        # what does not fit the registers goes to the stack
        assert stack + local == 0, compiled["name"]
        assert registers <= most[compiled["name"].split()[1]], compiled["name"]

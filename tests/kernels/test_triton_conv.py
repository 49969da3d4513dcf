"""Triton convolutions without a GPU: interpreted against float64; the way of a launch to machine code."""

import importlib.util
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from emsr_fast.reference import conv3x3 as conv3x3_reference
from emsr_fast.reference import edge_gate as edge_gate_reference
from emsr_fast.reference import upsample_to_image as upsample_reference
from python_for_triton import in_python
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
        in_python(INTERPRET, folder / "calls.pt", interpret=True)
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
    launched = in_python(LAUNCH, tmp_path / "calls.pt", interpret=False).split()
    assert len(launched) == 2 + 4 + 2 + 4

"""The network on Triton's convolutions without a GPU: interpreted as a whole, launches that cover any image."""

import importlib.util
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")

# the whole network through the public operators, as on a GPU but for the interpreter
NETWORK = """
import sys
import torch
from emsr_fast import Emsr, EmsrConfig, _backends
from emsr_fast.ops._operator import Operator

_backends.why_not = lambda backend, x: None if backend in ("triton", "reference") else "not in this test"
torch.manual_seed(0)
model = Emsr(EmsrConfig(features=16, blocks=1, heads=4, scale=int(sys.argv[1]))).half()
y = torch.rand(1, 1, 9, 14)
ran = []
choose = Operator.choose


def noted(operator, *arguments, **named):
    ran.append((operator.name, choose(operator, *arguments, **named)))
    return ran[-1][1]


with torch.inference_mode():
    with _backends.use_backend("reference"):
        exact, rounded = model.double()(y.half().double()), model.half()(y.half())
    Operator.choose = noted
    out = model(y.half())
error, allowed = (out - exact).abs().max().item(), (rounded - exact).abs().max().item()
print(error, allowed, *sorted({operator for operator, backend in ran if backend == "triton"}))
"""


@pytest.mark.exhaustive
@pytest.mark.parametrize("scale", [3, 4])
def test_the_network_runs_on_these_kernels(tmp_path, scale):
    # in a Python of its own: triton reads TRITON_INTERPRET when it is imported
    done = subprocess.run(
        [sys.executable, "-c", NETWORK, str(scale)],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    error, allowed, *operators = done.stdout.split()
    assert {"atrous_details", "conv3x3", "edge_gate"} <= set(operators)
    assert ("upsample_to_image" in operators) == (scale == 3)
    # no worse than twice the rounding error of the same network in plain PyTorch
    assert float(error) <= 2 * float(allowed)


@pytest.mark.parametrize("processors", [1, 108, 132])
@pytest.mark.parametrize("height", [1, 3, 4, 5, 41, 256, 341, 1024, 19000])
def test_programs_walk_down_every_row_and_fill_the_gpu(height, processors):
    from emsr_fast.kernels.triton.conv3x3 import LEAST_ROWS, PROGRAMS, rows_of_a_program

    for strips in (1, 2, 8, 128):
        rows = rows_of_a_program(height, strips, processors)
        segments = -(-height // rows)
        assert segments * rows >= height > (segments - 1) * rows
        # all at once, or strips that cannot be cut any less
        assert segments * strips <= max(PROGRAMS * processors, strips)
        # short runs read two rows more than they own
        assert rows >= min(LEAST_ROWS, height)


@pytest.mark.parametrize("capability", [(8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)])
@pytest.mark.parametrize("width", [1, 16, 40, 64, 65, 341, 1024])
def test_a_strip_fits_its_gpu(width, capability):
    from emsr_fast.kernels.triton.conv3x3 import strip_of

    columns, warps = strip_of(width, capability)
    # three shifts of a row at the least, nine taps, and k2
    shared = 3 * columns * 128 + 9 * 8192 + 8192
    assert shared <= {(8, 0): 163, (9, 0): 227, (10, 0): 227}.get(capability, 99) * 1024
    # three sums of 64 channels, in registers: 32 bits each, of 255 a thread
    assert 3 * columns * 64 / (32 * warps) <= 96

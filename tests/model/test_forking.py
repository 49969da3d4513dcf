"""Processes forked from one that has used the network: they lack PyTorch's threads, and do not wait for them."""

import subprocess
import sys

import pytest

WORK = {
    # all but the last two hung
    "training": """
model, y = emsr_fast.Emsr().train(), torch.rand(1, 1, 96, 96)
def work():
    model.zero_grad()
    model(y).sum().backward()
    return model.conv_in.weight.grad.clone()
""",
    "reference": """
model, y = emsr_fast.load_model("emsr-x3-small", device="cpu"), torch.rand(1, 1, 192, 192)
def work():
    with torch.inference_mode(), use_backend("reference"):
        return model(y)
""",
    "array": """
pixels = np.random.default_rng(0).integers(20, 235, (2, 48, 48), dtype="u1")
def work():
    return torch.from_numpy(emsr_fast.super_resolve(pixels, device="cpu"))
""",
    "volume": """
pixels = np.random.default_rng(0).integers(20, 235, (2, 48, 48), dtype="u1")
tifffile.imwrite("in.tif", pixels, photometric="minisblack")
def work():
    infer("in.tif", "out.tif", input_voxel="ignore", device="cpu", overwrite=True)
    return torch.from_numpy(tifffile.imread("out.tif"))
""",
    "kernels": """
model, y = emsr_fast.load_model("emsr-x3-small", device="cpu"), torch.rand(1, 1, 192, 192)
def work():
    with torch.inference_mode():
        return model(y)
""",
    "onnx": """
engine, _ = open_engine("onnx", emsr_fast.load_model("emsr-x3-small", device="cpu"), device="cpu", truth=False)
tiles = np.random.default_rng(0).random((1, 1, 64, 64), dtype=np.float32)
def work():
    return torch.from_numpy(engine.run(tiles))
""",
}
PROGRAM = """
import os
import numpy as np, tifffile, torch
import emsr_fast
from emsr_fast._backends import use_backend
from emsr_fast.engine.factory import open_engine
from emsr_fast.infer.job import infer
torch.set_num_threads(4)
{work}
expected = work()
child = os.fork()
if child == 0:
    # on one thread PyTorch adds in another order
    wanted, difference = expected.double(), work().double() - expected.double()
    os._exit(0 if difference.abs().max() <= 1e-4 * wanted.abs().max() else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(torch.get_num_threads())
"""


# some 4 s each: a process of its own that loads torch; the ONNX model takes 10 s
@pytest.mark.parametrize(
    "work", [pytest.param(name, marks=pytest.mark.exhaustive if name == "onnx" else ()) for name in WORK]
)
def test_a_forked_process_works_like_its_parent(work):
    program = PROGRAM.replace("{work}", WORK[work])
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert result.stdout.split() == ["0", "4"], result.stderr


def test_who_has_not_used_the_network_keeps_the_threads():
    program = """
import os, torch, emsr_fast
from emsr_fast.infer.job import infer
torch.set_num_threads(4)
child = os.fork()
if child == 0:
    os._exit(torch.get_num_threads())
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.stdout.split() == ["4"], result.stderr

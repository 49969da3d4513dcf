"""The convolutions for Hopper's tensor cores without a GPU: what they compile to, and their threads run on the CPU."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from test_kernels_cuda import ROOT, nvcc

from emsr_fast import BackendError, conv3x3
from emsr_fast.ops.conv3x3 import ACTIVATIONS, _why_not_hopper
from emsr_fast.reference import conv3x3 as reference

HALVES = [torch.float16, torch.bfloat16]
C = 64
COLUMNS = 128  # of a strip


def disassembler():
    """Return NVIDIA's cuobjdump, which Triton brings as well, or None."""
    found = shutil.which("cuobjdump")
    if found is None:
        triton = pytest.importorskip("triton")
        inside = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
        found = str(inside) if inside.exists() else None
    return found


def machine_code(source, tmp_path):
    """Return the instructions of each kernel of a file, by its mangled name."""
    log = nvcc(ROOT / "kernels" / "cuda" / source, tmp_path / "kernels.o", ("90a",))
    # ptxas says so where it cannot keep the products of a row in flight
    assert "serialized" not in log
    program = disassembler()
    if program is None:
        pytest.skip("no cuobjdump, neither of CUDA nor of Triton")
    # it calls nvdisasm, its neighbour
    path = os.pathsep.join((str(Path(program).parent), os.environ["PATH"]))
    done = subprocess.run(
        [program, "-sass", str(tmp_path / "kernels.o")],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path},
    )
    assert done.returncode == 0, done.stderr
    names_and_texts = re.split(r"Function : (\w+)", done.stdout)[1:]
    return dict(zip(names_and_texts[::2], names_and_texts[1::2], strict=True))


def test_weights_stay_in_registers_and_products_follow_each_other(tmp_path):
    kernels = machine_code("conv3x3.cu", tmp_path)
    assert len(kernels) == 2
    for text in kernels.values():
        products = re.findall(r"HGMMA\.64x128x16\.F32(?:\.BF16)? R\d+, (R\d+), gdesc", text)
        assert len(products) == 36  # 9 taps, 4 times 16 channels
        assert len(set(products)) == 36
        assert not re.search(r"\b(LDL|STL)\b", text)
        # nothing but descriptors between the first product and the last
        row = text[text.index("HGMMA") : text.rindex("HGMMA")]
        assert not re.search(r"\b(LDG|LDS|LDSM|STS|STSM|BAR|DEPBAR|BRA|LDGSTS|WARPGROUP)\b", row)


@pytest.fixture(scope="module")
def on_host(tmp_path_factory):
    """Return a function that runs the blocks of the convolution on the CPU."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler: the kernel's threads cannot be run on the CPU")
    folder = tmp_path_factory.mktemp("conv3x3_on_host")
    includes = [f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'kernels' / 'cuda'}"]
    source = ROOT / "tests" / "native" / "conv3x3_on_host.cpp"
    # the sanitizers see any access outside images and shared memory; a compiler without them still shows wrong values
    for sanitizers in (["-fsanitize=address,undefined", "-fno-sanitize-recover=all"], []):
        command = [compiler, "-std=c++17", "-O1", "-w", *sanitizers, *includes, str(source), "-o", str(folder / "run")]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr

    def run(x, weight, activation="none", residual=None, gate=None, blocks=1, order="forward"):
        other = x if residual is None and gate is None else gate if residual is None else residual
        combine = 0 if residual is None and gate is None else 2 if residual is None else 1
        store(x.as_strided((x.untyped_storage().nbytes() // 2,), (1,), 0), folder / "x")
        store(weight.permute(0, 2, 3, 1), folder / "weight")
        store(other.permute(0, 2, 3, 1), folder / "other")
        b, _, h, w = x.shape
        layout = (b, h, w, x.stride(0), x.stride(2), x.stride(3), x.storage_offset())
        files = [str(folder / name) for name in ("weight", "x", "other", "out")]
        numbers = (blocks, ACTIVATIONS.index(activation), combine)
        command = [
            str(folder / "run"),
            str(x.dtype).split(".")[1],
            order,
            *map(str, numbers),
            *files,
            *map(str, layout),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        out = torch.from_numpy(np.fromfile(folder / "out", np.int16)).view(x.dtype)
        return out.reshape(b, h, w, C).permute(0, 3, 1, 2)

    return run


def store(tensor, path):
    tensor.contiguous().view(torch.int16).numpy().tofile(path)


def images(shape, dtype, names=()):
    """Return features, channels last, a weight, and further features by name."""
    torch.manual_seed(0)
    b, h, w = shape
    x, *others = (torch.randn(b, h, w, C).to(dtype).permute(0, 3, 1, 2) for _ in range(1 + len(names)))
    weight = (torch.randn(C, C, 3, 3) * (9 * C) ** -0.5).to(dtype)
    return x, weight, dict(zip(names, others, strict=True))


def assert_matches_definition(out, x, weight, activation, others):
    plain = reference.conv3x3(x, weight, activation, **others)
    exact = reference.conv3x3(x.double(), weight.double(), activation, **{k: v.double() for k, v in others.items()})
    # no worse than twice the rounding error of the same formula in plain PyTorch, but for the rounding of the result
    rounding = torch.finfo(out.dtype).eps / 2 * exact.abs().max()
    assert (out - exact).abs().max() <= 2 * (plain - exact).abs().max() + rounding


EPILOGUES = {
    "none": ("none", ()),
    "relu": ("relu", ()),
    "leaky_relu": ("leaky_relu", ()),
    "leaky_relu and residual": ("leaky_relu", ("residual",)),
    "gate": ("none", ("gate",)),
}


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 5), (1, 2, COLUMNS + 2)], ids=str)
@pytest.mark.parametrize("epilogue", EPILOGUES)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_every_epilogue_matches_the_definition(on_host, dtype, epilogue, shape):
    activation, names = EPILOGUES[epilogue]
    x, weight, others = images(shape, dtype, names)
    assert_matches_definition(on_host(x, weight, activation, **others), x, weight, activation, others)


# blocks that end within a strip, at its end, and have several strips or images
@pytest.mark.parametrize("blocks", [1, 3, 7, 20])
@pytest.mark.parametrize("shape", [(1, 11, 1), (2, 5, COLUMNS), (2, 3, 2 * COLUMNS + 1)], ids=str)
def test_strips_and_segments_join(on_host, shape, blocks):
    x, weight, others = images(shape, torch.float16, ("residual",))
    out = on_host(x, weight, "relu", **others, blocks=blocks)
    assert_matches_definition(out, x, weight, "relu", others)


def test_the_order_of_threads_does_not_matter(on_host):
    x, weight, others = images((2, 4, COLUMNS + 3), torch.bfloat16, ("gate",))
    expected = on_host(x, weight, **others, blocks=3)
    assert torch.equal(on_host(x, weight, **others, blocks=3, order="reverse"), expected)
    assert torch.equal(on_host(x, weight, **others, blocks=5), expected)


def test_nothing_outside_the_image_leaks_in(on_host):
    # NaN just beyond each side of a view with steps of its own
    canvas = torch.full((2, 9, 40, C), float("nan"), dtype=torch.float16)
    x = canvas[:, 2:7, 3:37:2].permute(0, 3, 1, 2)
    inside, weight, _ = images((2, 5, 17), torch.float16)
    x.copy_(inside)
    assert_matches_definition(on_host(x, weight, blocks=2), inside, weight, "none", {})


def test_not_a_number_and_infinity_stay(on_host):
    x, weight, _ = images((1, 4, 9), torch.float16)
    x[0, 3, 1, 4], x[0, 5, 3, 8] = float("nan"), float("inf")
    for activation in ACTIVATIONS:
        expected = reference.conv3x3(x, weight, activation)
        torch.testing.assert_close(on_host(x, weight, activation), expected, rtol=0.01, atol=0.01, equal_nan=True)


def test_what_the_kernel_lacks_is_said():
    x = torch.zeros(1, 1, 1, 1)
    assert _why_not_hopper(x, 64, 64) is None
    assert "64 channels going in and coming out, got 32 to 64" in _why_not_hopper(x, 32, 64)
    with pytest.raises(BackendError, match="backend 'cuda' cannot run: x is on cpu"):
        conv3x3(torch.zeros(1, C, 4, 4), torch.zeros(C, C, 3, 3), backend="cuda")

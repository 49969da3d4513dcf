"""The convolutions for Hopper's tensor cores without a GPU: what they compile to, and their threads run on the CPU."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from cuda_compiler import ROOT, nvcc
from emsr_fast import BackendError, conv3x3
from emsr_fast.ops.conv3x3 import ACTIVATIONS, why_not_hopper
from emsr_fast.reference import conv3x3 as reference
from emsr_fast.reference import residual_block as residual_reference
from sweeps import quick_of

HALVES = [torch.float16, torch.bfloat16]
C = 64
COLUMNS = 128  # of a strip
BLOCK_COLUMNS = 134  # the same of the residual block


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


@pytest.mark.parametrize(("source", "layers", "columns"), [("conv3x3.cu", 1, 128), ("residual_block.cu", 2, 136)])
def test_weights_stay_in_registers_and_products_follow_each_other(source, layers, columns, tmp_path):
    kernels = machine_code(source, tmp_path)
    assert len(kernels) == 2
    for text in kernels.values():
        assert not re.search(r"\b(LDL|STL)\b", text)
        instructions = re.findall(r"/\*[0-9a-f]{4,}\*/ +(?:@!?U?P\d+ +)?([^;]+);", text)
        places = [i for i, instruction in enumerate(instructions) if instruction.startswith("HGMMA")]
        assert len(places) == 36 * layers  # 9 taps, 4 times 16 channels
        for layer in range(layers):
            row = instructions[places[36 * layer] : places[36 * layer + 35] + 1]
            products = [re.match(rf"HGMMA\.64x{columns}x16\.F32(?:\.BF16)? R\d+, (R\d+), gdesc", i) for i in row]
            weights = {found.group(1) for found in products if found}
            assert len(weights) == 36
            # nothing but descriptors between the first product and the last
            others = {i.split()[0].split(".")[0] for i in row if not i.startswith("HGMMA")}
            assert not others & {"LDG", "LDS", "LDSM", "STS", "STSM", "BAR", "BRA", "LDGSTS", "WARPGROUP"}
            assert len(row) < 3 * 36


def built_for_the_host(name, folder, kernels=ROOT / "kernels" / "cuda"):
    """Compile a program of tests/native, with sanitizers where there are any, and return its path."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler: the kernel's threads cannot be run on the CPU")
    includes = [f"-I{ROOT / 'csrc'}", f"-I{kernels}"]
    source = ROOT / "tests" / "native" / f"{name}.cpp"
    # the sanitizers see any access outside images and shared memory; a compiler without them still shows wrong values
    for sanitizers in (["-fsanitize=address,undefined", "-fno-sanitize-recover=all"], []):
        command = [compiler, "-std=c++17", "-O1", "-w", *sanitizers, *includes, str(source), "-o", str(folder / "run")]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr
    return folder / "run"


def run_on_host(program, x, numbers, files, order):
    """Run a program with tensors in files, in the order given, ``x`` as a whole storage; return what it wrote."""
    folder = program.parent
    for name, tensor in files.items():
        store(tensor.permute(0, 2, 3, 1), folder / name)
    store(x.as_strided((x.untyped_storage().nbytes() // 2,), (1,), 0), folder / "x")
    b, _, h, w = x.shape
    layout = (b, h, w, x.stride(0), x.stride(2), x.stride(3), x.storage_offset())
    paths = [str(folder / name) for name in (*files, "out")]
    command = [str(program), str(x.dtype).split(".")[1], order, *map(str, numbers), *paths, *map(str, layout)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    out = torch.from_numpy(np.fromfile(folder / "out", np.int16)).view(x.dtype)
    return out.reshape(b, h, w, C).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def on_host(tmp_path_factory):
    """Return a function that runs the blocks of the convolution on the CPU."""
    program = built_for_the_host("conv3x3_on_host", tmp_path_factory.mktemp("conv3x3"))

    def run(x, weight, activation="none", residual=None, gate=None, blocks=1, order="forward"):
        other = x if residual is None and gate is None else gate if residual is None else residual
        combine = 0 if residual is None and gate is None else 2 if residual is None else 1
        numbers = (blocks, ACTIVATIONS.index(activation), combine)
        return run_on_host(program, x, numbers, {"weight": weight, "x": x, "other": other}, order)

    return run


@pytest.fixture(scope="module")
def block_on_host(tmp_path_factory):
    """Return a function that runs the blocks of the residual block on the CPU."""
    program = built_for_the_host("residual_block_on_host", tmp_path_factory.mktemp("residual_block"))

    def run(x, first, second, blocks=1, order="forward"):
        return run_on_host(program, x, (blocks,), {"first": first, "second": second, "x": x}, order)

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


@pytest.mark.parametrize("shape", quick_of([(1, 1, 1), (2, 3, 5), (1, 2, COLUMNS + 2)], [(2, 3, 5)]), ids=str)
@pytest.mark.parametrize("epilogue", EPILOGUES)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_every_epilogue_matches_the_definition(on_host, dtype, epilogue, shape):
    activation, names = EPILOGUES[epilogue]
    x, weight, others = images(shape, dtype, names)
    assert_matches_definition(on_host(x, weight, activation, **others), x, weight, activation, others)


# blocks that end within a strip, at its end, and have several strips or images
@pytest.mark.parametrize("blocks", quick_of([1, 3, 7, 20], [7]))
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


def block_arguments(shape, dtype):
    x, first, _ = images(shape, dtype)
    return x, first, (torch.randn(C, C, 3, 3) * (9 * C) ** -0.5).to(dtype)


def assert_matches_block(out, x, first, second):
    plain = residual_reference.residual_block(x, first, second)
    exact = residual_reference.residual_block(x.double(), first.double(), second.double())
    rounding = torch.finfo(out.dtype).eps / 2 * exact.abs().max()
    assert (out - exact).abs().max() <= 2 * (plain - exact).abs().max() + rounding


# one pixel; the ring turned over; strips that end at the image's border, one pixel before and behind it
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (2, 1, 9), (1, 14, 3), *((1, 3, BLOCK_COLUMNS + i) for i in (-1, 0, 1))], ids=str
)
@pytest.mark.parametrize("dtype", quick_of(HALVES, HALVES[:1]), ids=str)
def test_residual_block_matches_the_definition(block_on_host, dtype, shape):
    x, first, second = block_arguments(shape, dtype)
    assert_matches_block(block_on_host(x, first, second), x, first, second)


@pytest.mark.parametrize("blocks", quick_of([2, 7], [7]))
def test_strips_and_segments_of_the_residual_block_join(block_on_host, blocks):
    x, first, second = block_arguments((2, 5, BLOCK_COLUMNS + 3), torch.float16)
    out = block_on_host(x, first, second, blocks)
    assert_matches_block(out, x, first, second)
    assert torch.equal(block_on_host(x, first, second, 3, order="reverse"), out)


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ("kBetweens = 5", "kBetweens = 4", "write of what another thread may still read"),
        pytest.param(*("kInputs = 6", "kInputs = 5", "two unordered writes"), marks=pytest.mark.exhaustive),
        pytest.param(
            *("kBehind = 3", "kBehind = 2", "product of what was not published"), marks=pytest.mark.exhaustive
        ),
        pytest.param(*("group_.sync();", "", "read of an unordered write"), marks=pytest.mark.exhaustive),
    ],
)
def test_a_race_is_seen(right, wrong, says, tmp_path):
    kernels = tmp_path / "kernels"
    shutil.copytree(ROOT / "kernels" / "cuda", kernels)
    strip = kernels / "residual_block_strip.cuh"
    assert strip.read_text().count(right) == 1
    strip.write_text(strip.read_text().replace(right, wrong))
    program = built_for_the_host("residual_block_on_host", tmp_path, kernels)
    x, first, second = block_arguments((1, 9, 9), torch.float16)
    with pytest.raises(AssertionError, match=says):
        run_on_host(program, x, (1,), {"first": first, "second": second, "x": x}, "forward")


def test_nothing_outside_leaks_into_the_residual_block(block_on_host):
    canvas = torch.full((2, 9, 40, C), float("nan"), dtype=torch.bfloat16)
    x = canvas[:, 2:7, 3:37:2].permute(0, 3, 1, 2)
    inside, first, second = block_arguments((2, 5, 17), torch.bfloat16)
    x.copy_(inside)
    assert_matches_block(block_on_host(x, first, second, blocks=2), inside, first, second)


def test_what_the_kernel_lacks_is_said():
    x = torch.zeros(1, 1, 1, 1)
    assert why_not_hopper(x, 64, 64) is None
    assert "64 channels going in and coming out, got 32 to 64" in why_not_hopper(x, 32, 64)
    with pytest.raises(BackendError, match="backend 'cuda' cannot run: x is on cpu"):
        conv3x3(torch.zeros(1, C, 4, 4), torch.zeros(C, C, 3, 3), backend="cuda")

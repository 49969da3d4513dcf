"""CUDA kernels without a GPU: they compile for every architecture without spilling, and they index correctly."""

import re
import shutil
import subprocess

import numpy as np
import pytest
import torch

from cuda_compiler import ARCHITECTURES, ROOT, nvcc
from emsr_fast.reference import atrous as reference

SOURCES = sorted((ROOT / "kernels" / "cuda").glob("*.cu"))
HOPPER = {"conv3x3.cu": ("90a",), "residual_block.cu": ("90a",)}  # files for compute capability 9.0 alone
# of any architecture: where the shared memory holds one block on an SM, registers are no limit
MOST_REGISTERS = {
    "atrous_details_kernel": 64,
    "atrous_adjoint_kernel": 104,
    # 12 warps of an SM, 8 from sm_100 on
    "window_attention_mma_kernel": 168,
    "window_attention_fma_kernel": 255,
    # two blocks of four warps on an SM
    "conv3x3_strip_kernel": 255,
    # one block of eight
    "residual_block_strip_kernel": 255,
}
MOST_REGISTERS_SM_100 = {"window_attention_mma_kernel": 208}


def kernel_usage(log: str) -> list[tuple[str, int, int]]:
    """Return (mangled name and architecture, registers, bytes spilled) of every kernel in a ptxas log."""
    found = re.findall(
        r"Compiling entry function '(\w+)' for '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
        r"(\d+) bytes spill loads.*?Used (\d+) registers",
        log,
        re.DOTALL,
    )
    return [(f"{name} {sm}", int(registers), sum(map(int, memory))) for name, sm, *memory, registers in found]


@pytest.mark.parametrize(
    "architectures", [(90,), pytest.param(ARCHITECTURES, marks=pytest.mark.exhaustive)], ids=["sm_90", "every"]
)
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_every_kernel_compiles_without_spills(source, architectures, tmp_path):
    log = nvcc(source, tmp_path / "kernels.o", HOPPER.get(source.name, architectures))
    usage = kernel_usage(log)
    assert len(usage) == log.count("Compiling entry function")
    assert [entry for entry in usage if entry[2] > 0] == []
    for name, registers, _ in usage:
        stated = MOST_REGISTERS | (MOST_REGISTERS_SM_100 if name.endswith(("sm_100", "sm_120")) else {})
        most = [limit for kernel, limit in stated.items() if kernel in name]
        assert len(most) == 1, f"{name} has no stated number of registers"
        assert registers <= most[0], name


def test_a_spill_is_seen(tmp_path):
    # 128 running values cannot live in the 64 registers that two blocks of 512 threads leave
    source = tmp_path / "greedy.cu"
    source.write_text("""
        __global__ void __launch_bounds__(512, 2) greedy_kernel(const float* x, float* out) {
          float v[128];
          #pragma unroll
          for (int k = 0; k < 128; ++k) v[k] = x[k * 512 + threadIdx.x];
          __syncthreads();
          #pragma unroll
          for (int k = 0; k < 128; ++k) out[k * 512 + threadIdx.x] = v[k] * v[(k * 37) % 128];
        }
    """)
    ((_, _, spilled),) = kernel_usage(nvcc(source, tmp_path / "greedy.o", architectures=(90,)))
    assert spilled > 0


@pytest.fixture(scope="module")
def on_host(tmp_path_factory):
    """Return a function that runs the à-trous tile phases on the CPU, thread by thread."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler: the tile phases cannot be run on the CPU")
    folder = tmp_path_factory.mktemp("atrous_on_host")
    includes = [f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'kernels' / 'cuda'}"]
    source = ROOT / "tests" / "native" / "atrous_on_host.cpp"
    # the sanitizers see any access outside image or shared memory; a compiler without them still shows wrong values
    for sanitizers in (["-fsanitize=address,undefined", "-fno-sanitize-recover=all"], []):
        command = [compiler, "-std=c++17", "-O1", *sanitizers, *includes, str(source), "-o", str(folder / "run")]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr

    def run(operator, x, levels, order="forward"):
        storage = x.as_strided((x.untyped_storage().nbytes() // 4,), (1,), 0)
        storage.numpy().tofile(folder / "in.bin")
        layout = [str(number) for number in (*x.shape, *x.stride(), x.storage_offset())]
        files = [str(folder / "in.bin"), str(folder / "out.bin")]
        command = [str(folder / "run"), operator, str(levels), order, *files, *layout]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        b, c, h, w = x.shape
        channels = c * levels if operator == "details" else c // levels
        return torch.from_numpy(np.fromfile(folder / "out.bin", np.float32)).reshape(b, channels, h, w)

    return run


DEFINITIONS = {"details": reference.atrous_details, "adjoint": reference.atrous_details_backward}
SHAPES = [(1, 1, 1, 1), (1, 1, 1, 5), (2, 3, 7, 64), (1, 2, 33, 97), (1, 1, 341, 17), (3, 1, 65, 129), (1, 1, 130, 66)]


def random_input(operator, shape, levels):
    b, c, h, w = shape
    torch.manual_seed(0)
    return torch.rand(b, c * levels if operator == "adjoint" else c, h, w)


def assert_matches_definition(result, operator, x, levels):
    exact, plain = DEFINITIONS[operator](x.double(), levels), DEFINITIONS[operator](x, levels)
    # no worse than twice the rounding error of the same formula in plain PyTorch
    assert (result - exact).abs().max() <= 2 * (plain - exact).abs().max() + 1e-7


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("levels", [1, 2, 3, 4])
@pytest.mark.parametrize("operator", DEFINITIONS)
def test_tile_phases_match_the_definition(on_host, operator, levels, shape):
    x = random_input(operator, shape, levels)
    assert_matches_definition(on_host(operator, x, levels), operator, x, levels)


@pytest.mark.parametrize("operator", DEFINITIONS)
def test_tile_phases_take_any_strides(on_host, operator):
    x = random_input(operator, (2, 2, 50, 70), 3).transpose(2, 3)[:, :, 3:, ::2]
    assert_matches_definition(on_host(operator, x, 3), operator, x, 3)


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
@pytest.mark.parametrize("operator", DEFINITIONS)
def test_the_order_of_threads_within_a_phase_does_not_matter(on_host, operator, levels):
    x = random_input(operator, (1, 1, 70, 81), levels)
    assert torch.equal(on_host(operator, x, levels), on_host(operator, x, levels, order="reverse"))


@pytest.mark.parametrize("operator", DEFINITIONS)
def test_nothing_outside_the_image_leaks_in(on_host, operator):
    # a NaN just beyond each side of the view is in reach of every stage
    canvas = torch.full((1, 3, 50, 60), float("nan"))
    inside = canvas[:, :, 7:41, 9:55]
    inside.copy_(torch.rand_like(inside))
    assert_matches_definition(on_host(operator, inside, 3), operator, inside, 3)


def test_an_empty_batch_launches_nothing(on_host):
    assert on_host("details", torch.rand(0, 1, 8, 8), 3).shape == (0, 3, 8, 8)

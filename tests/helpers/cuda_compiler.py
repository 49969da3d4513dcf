"""NVIDIA's compiler, as the tests of the CUDA sources call it."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURES = (80, 86, 89, 90, 100, 120)


def nvcc(source: Path, output: Path, architectures=ARCHITECTURES) -> str:
    """Compile ``source`` for all ``architectures`` into ``output`` and return what ptxas says about each kernel."""
    compiler = shutil.which("nvcc")
    if compiler is None:
        pytest.skip("nvcc is not on PATH: CUDA kernels can be compiled only where the CUDA toolkit is")
    targets = [f"-gencode=arch=compute_{sm},code=sm_{sm}" for sm in architectures]
    command = [compiler, "-std=c++17", "-O3", "--threads=2", "-Xptxas=-v", f"-I{ROOT / 'csrc'}", *targets]
    done = subprocess.run([*command, "-c", str(source), "-o", str(output)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr

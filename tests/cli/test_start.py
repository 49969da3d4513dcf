"""What a command loads before it answers, and which kernels it ends up with: processes as users start them."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from emsr_fast import _backends, _native
from emsr_fast.bench.job import bench
from emsr_fast.cli import main
from emsr_fast.installing import install_line, packages_of
from emsr_fast.train.config import TrainConfig
from emsr_fast.train.loop import train

ROOT = Path(__file__).parents[2]
LOADED = """
import json, sys
from emsr_fast.cli import main
code = main(sys.argv[1:])
print(json.dumps(sorted(sys.modules)))
sys.exit(code)
"""


def loaded_by(*arguments):
    """Return the names of the modules that a command has loaded when it ends."""
    command = [sys.executable, "-c", LOADED, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return set(json.loads(result.stdout.splitlines()[-1]))


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (2, 24, 28), dtype=np.uint8)
    tifffile.imwrite(path, pixels, photometric="minisblack", metadata={"axes": "ZYX"})
    return path


def test_infer_does_not_load_the_compiler_of_torch(small, tmp_path):
    loaded = loaded_by("infer", small, "-o", tmp_path / "a.ome.zarr")
    assert "torch" in loaded
    assert not {name for name in loaded if name.startswith(("torch._dynamo", "torch._inductor"))}


@pytest.mark.parametrize("arguments", [("models",), ("models", "--full"), ("models", "--json")])
def test_what_needs_no_network_loads_no_torch(arguments):
    assert "torch" not in loaded_by(*arguments)


def test_help_loads_nothing_that_takes_long():
    # 9 ms of 70
    assert not {"importlib.metadata", "numpy", "pydantic", "yaml"} & loaded_by("--help")


def test_inspect_loads_no_torch(small):
    assert "torch" not in loaded_by("inspect", small)


def test_a_fact_is_marked_as_torch_itself_marks_it():
    ours, theirs = (
        mark(lambda: True) for mark in (_backends.constant_when_compiled, torch.compiler.assume_constant_result)
    )
    assert vars(ours) == vars(theirs)


def test_the_demo_of_a_checkout_runs_the_compiled_kernels(tmp_path):
    command = [sys.executable, str(ROOT / "examples" / "demo.py"), str(tmp_path / "demo")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    assert re.search(r"^engine  torch \(.*kernels: cpp, (baseline|avx2|avx512)\)$", result.stderr, re.MULTILINE)
    picture = Path(result.stdout.splitlines()[-1].split(maxsplit=3)[-1])
    assert picture.name == "side_by_side.png"
    assert picture.is_file()


@pytest.fixture
def uncompiled(monkeypatch):
    """An installation without the compiled module."""
    monkeypatch.setattr(_native, "why_missing", "the compiled module is not installed (by design)")
    _native.why_no_cpu.cache_clear()
    yield
    _native.why_no_cpu.cache_clear()


def notes(text):
    return [line for line in text.splitlines() if "slow reference" in line]


def test_infer_train_and_bench_say_that_the_kernels_are_missing(uncompiled, small, tmp_path, capfd, small_run):
    assert main(["infer", str(small), "-o", str(tmp_path / "a.tif")]) == 0
    (line,) = notes(capfd.readouterr().err)
    assert "not installed (by design)" in line
    assert install_line() in line
    said = []
    train(TrainConfig(**small_run | {"steps": 1}), say=said.append)
    bench(size=16, repeats=1, say=said.append)
    assert len(notes("\n".join(said))) == 2


def test_who_asks_for_the_reference_is_not_warned(uncompiled, small, tmp_path, capfd):
    with _backends.use_backend("reference"):
        assert main(["infer", str(small), "-o", str(tmp_path / "a.tif")]) == 0
    assert notes(capfd.readouterr().err) == []


def test_the_line_that_installs_an_extra_builds_nothing():
    line = shlex.split(install_line("train"))
    assert line[:6] == [sys.executable, "-m", "pip", "install", "-c", str(ROOT / "constraints.txt")]
    # packages alone: the sources would be compiled again
    assert {re.split("[>=;]", package)[0] for package in line[6:]} == {
        "pyyaml",
        "scikit-image",
        "pywavelets",
        "tensorboard",
    }
    # an extra in an extra, and a condition
    packages = packages_of("trt")
    assert any(package.startswith("onnxruntime") for package in packages)
    assert any(re.fullmatch(r"tensorrt.*; platform_machine == .x86_64.", package) for package in packages)
    assert not any("emsr-fast" in package for package in packages)


def test_the_line_that_installs_the_package_names_the_sources_and_not_an_index(monkeypatch, tmp_path):
    assert install_line() == f"{sys.executable} -m pip install -c {ROOT}/constraints.txt -e {ROOT}"
    monkeypatch.setattr("emsr_fast.installing._NAME", "no-such-package")
    assert install_line("onnx") == f"{sys.executable} -m pip install -c {ROOT}/constraints.txt -e '{ROOT}[onnx]'"
    monkeypatch.setattr("emsr_fast.installing._ROOT", tmp_path)
    assert install_line("onnx") == "pip install '.[onnx]' in a clone of emsr_fast"
    for path in [*(ROOT / "emsr_fast").rglob("*.py"), *(ROOT / "docs").glob("*.md"), ROOT / "README.md"]:
        assert "pip install 'emsr-fast" not in path.read_text(), path


@pytest.fixture
def checkout(tmp_path):
    """What the Makefile sees of a checkout, with a pip that only notes down what it is asked for."""
    for name in ("Makefile", "setup.py", "pyproject.toml", "CMakeLists.txt", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("emsr_fast/errors.py", "csrc/atrous.h", "kernels/cuda/atrous.cu", "kernels/triton/atrous.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("python", "pip"):
        program = tmp_path / ".venv" / "bin" / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/asked\n')
        program.chmod(0o755)
    return tmp_path


def test_the_makefile_installs_editable_and_builds_again_when_what_is_compiled_changes(checkout):
    def asked(target="demo"):
        (checkout / "asked").write_text("")
        subprocess.run(["make", target], cwd=checkout, capture_output=True, check=True)
        return (checkout / "asked").read_text().splitlines()

    install, demo = asked()
    assert install.startswith("pip install")
    assert install.endswith("-e .")
    assert "--quiet" not in install
    assert demo == "python examples/demo.py"
    assert asked() == [demo]
    extra = asked("extra-train")
    assert "python -m emsr_fast.installing train" in extra
    assert not any("-e" in line.split() for line in extra)
    later = (checkout / ".venv" / ".installed").stat().st_mtime + 10
    for python_only in ("emsr_fast/errors.py", "kernels/triton/atrous.py"):
        os.utime(checkout / python_only, (later, later))
    assert asked() == [demo]
    os.utime(checkout / "csrc/atrous.h", (later, later))
    assert asked() == [install, demo]

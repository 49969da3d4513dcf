"""Time until something can be done: import, --help, a loaded model, an installation from the sources."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = {
    "import emsr_fast": ["-c", "import emsr_fast"],
    "emsr-fast --help": ["-m", "emsr_fast", "--help"],
    "load a model": ["-c", "import emsr_fast; print(emsr_fast.load_model('emsr-x3-small', device='cpu').config)"],
}
ANSWERS = {"import emsr_fast": "", "emsr-fast --help": "infer", "load a model": "features=32"}


@pytest.mark.parametrize("name", COMMANDS)
def bench_start(benchmark, name, tmp_path):
    def run():
        # from an empty folder, so that the package that is installed answers
        return subprocess.run(
            [sys.executable, *COMMANDS[name]], cwd=tmp_path, capture_output=True, text=True, check=True
        )

    assert ANSWERS[name] in run().stdout
    benchmark.group = "start"
    benchmark.pedantic(run, rounds=3, iterations=1)


@pytest.mark.packaging
def bench_install(benchmark, tmp_path):
    def install():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", "site"]
        environment = {"EMSR_CUDA": "OFF", **os.environ}
        subprocess.run([*command, str(ROOT)], cwd=tmp_path, env=environment, check=True)

    benchmark.group = "install from the sources, without dependencies"
    benchmark.pedantic(install, rounds=1, iterations=1)
    assert list((tmp_path / "site" / "emsr_fast").glob("_C*.so"))

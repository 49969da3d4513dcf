"""Everything that needs a GPU, in one go: build, tests, compute-sanitizer, benches. ``make gpu-check``.

Made for a machine without network: nothing is downloaded, the package is built with what is installed and put into
build/gpu-check. A step that fails does not hide the later ones; each leaves a log there. Exit codes: 0 all passed,
1 a step failed, 5 no GPU.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SAFE = r"(?s)[1-9]\d* runs: .*conv3x3 triton"  # what compute-sanitizer watched
PLACE = ROOT / "build" / "gpu-check"
NO_GPU = 5
LAST_WORDS_S = 10  # for a step that is over its time
ON_REQUEST = ("test_gpu_hopper.py",)  # tests of kernels that "auto" does not choose yet
NEEDED = (
    *("torch", "triton", "numpy", "pydantic", "safetensors", "tifffile", "PIL"),
    *("pytest", "hypothesis", "setuptools", "pybind11", "ninja"),
)


@dataclass(frozen=True)
class Step:
    """A command, how long it may take, what its output must say, and what keeps it from running here, if anything."""

    name: str
    command: tuple[str, ...]
    limit_s: float
    says: str = ""  # a regular expression: a test-suite that skips everything ends well, too
    why_not: Callable[[], str | None] = lambda: None


@dataclass(frozen=True)
class Outcome:
    name: str
    result: str  # "passed", "failed (code)", "over its time" or "not run: why"
    seconds: float
    last_line: str

    @property
    def good(self) -> bool:
        return self.result == "passed"


def gpu_tests() -> tuple[str, ...]:
    """Return the test files that have something to run on a GPU."""
    wanted = re.compile(r"mark\.cuda|@cuda|^def test_\w+\([^)]*\bdevice\b", re.MULTILINE)
    return tuple(str(path) for path in sorted((ROOT / "tests").rglob("test_*.py")) if wanted.search(path.read_text()))


def pytest_command(*arguments: str) -> tuple[str, ...]:
    """Return a pytest call that works without the plugin that pyproject.toml counts on, too."""
    # a file that wants a package this machine lacks does not keep the others from running
    options = "--import-mode=importlib --strict-markers -ra -q -p no:cacheprovider --continue-on-collection-errors"
    if importlib.util.find_spec("pytest_benchmark"):
        options += " --benchmark-disable"
    if importlib.util.find_spec("xdist"):
        # most of the time goes into compiling some 200 Triton kernels, a second or more each
        options += f" -n {min(8, os.cpu_count() or 1)}"
    return (sys.executable, "-m", "pytest", "-o", f"addopts={options}", f"--rootdir={ROOT}", *arguments)


def without_sanitizer() -> str | None:
    return None if shutil.which("compute-sanitizer") else "compute-sanitizer is not on PATH"


def without_tensorrt() -> str | None:
    found = any(importlib.util.find_spec(name) for name in ("tensorrt", "tensorrt_rtx"))
    return None if found else "neither tensorrt nor tensorrt_rtx is installed"


def steps() -> tuple[Step, ...]:
    """Return what is done, in order: add a step here."""
    python = sys.executable
    install = (python, "-m", "pip", "install", "--no-index", "--no-build-isolation", "--no-deps", "--upgrade")
    # PyTorch's own calls that fail and are meant to would count as errors
    sanitizer = ("compute-sanitizer", "--report-api-errors=no", "--error-exitcode=9")
    exercise = (python, str(HERE / "exercise.py"))
    bench = (python, str(HERE / "speed.py"))
    # kernels on request have steps of their own, the last: they could stop the GPU for their whole process
    others = [path for path in gpu_tests() if Path(path).name not in ON_REQUEST]
    on_request = [path for path in gpu_tests() if Path(path).name in ON_REQUEST]
    return (
        Step("build", (*install, "--target", str(PLACE / "site"), str(ROOT)), 75),
        Step("tests", pytest_command("-m", "cuda", *others), 80, r"\d+ passed"),
        Step("memcheck", (*sanitizer, *exercise), 50, SAFE, without_sanitizer),
        Step("racecheck", (*sanitizer, "--tool=racecheck", *exercise), 50, SAFE, without_sanitizer),
        Step("operators", (*bench, "operators"), 50),
        Step("network", (*bench, "network"), 80),
        Step("engines", (python, str(HERE / "engines.py")), 45, r"\| torch ", without_tensorrt),
        Step("on request", pytest_command("-m", "cuda", *on_request), 25, r"\d+ (passed|skipped)"),
        Step("bench on request", (*bench, "on_request"), 25),
    )  # fmt: skip


def environment(capability: str | None) -> dict[str, str]:
    """Return the environment of every step: the package just built, kernels for this GPU alone."""
    # the tools of a virtual environment that is not activated lie beside its Python
    path = os.pathsep.join(filter(None, (str(Path(sys.executable).parent), os.environ.get("PATH"))))
    own = {
        "PATH": path,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(PLACE / "site"), os.environ.get("PYTHONPATH")))),
    }
    if capability:
        own["EMSR_CUDA_ARCHITECTURES"] = f"{capability}-real"
    return {**os.environ, **own, "EMSR_CUDA": "ON", "PYTHONUNBUFFERED": "1"}


def run(step: Step, folder: Path, variables: dict[str, str]) -> Outcome:
    """Run one step to its end or its limit; its output goes to a log of its name in ``folder``."""
    if reason := step.why_not():
        return Outcome(step.name, f"not run: {reason}", 0.0, "")
    log, start = folder / f"{step.name}.log", time.monotonic()
    with log.open("w") as out:
        # away from the sources, whose emsr_fast/ would hide the package just built
        options = {"cwd": folder, "env": variables, "stdout": out, "stderr": subprocess.STDOUT}
        try:
            process = subprocess.Popen(step.command, start_new_session=True, **options)
        except OSError as error:
            return Outcome(step.name, f"failed ({error})", 0.0, "")
        try:
            code = process.wait(step.limit_s)
            result = "passed" if code == 0 else f"failed ({code})"
        except subprocess.TimeoutExpired:
            result = f"over its time ({step.limit_s:g} s)"
            # pytest then says what has failed so far
            os.killpg(process.pid, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LAST_WORDS_S)
        finally:
            # what it started goes with it
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    text = log.read_text(errors="replace").strip()
    if result == "passed" and not re.search(step.says, text):
        result = "failed (ran nothing)"
    lines = text.splitlines()
    return Outcome(step.name, result, time.monotonic() - start, lines[-1] if lines else "")


def run_all(todo: Sequence[Step], folder: Path, variables: dict[str, str]) -> list[Outcome]:
    """Run every step, whatever became of the ones before."""
    outcomes = []
    for step in todo:
        outcomes.append(run(step, folder, variables))
        done = outcomes[-1]
        print(f"{done.name:<10} {done.result:<22} {done.seconds:6.1f} s  {done.last_line[:90]}", flush=True)
    return outcomes


def missing_packages() -> list[str]:
    found = {name: importlib.util.find_spec(name) is not None for name in NEEDED}
    found["cmake"] = shutil.which("cmake", path=environment(None)["PATH"]) is not None
    return [name for name in found if not found[name]]


def why_no_gpu() -> str | None:
    """Return why nothing can be checked here, or None."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    import torch

    if not torch.cuda.is_available():
        return f"torch {torch.__version__} sees no CUDA device"
    return None


def main() -> int:
    if reason := why_no_gpu():
        print(f"gpu-check: nothing was checked: {reason}")
        return NO_GPU
    import torch

    gpu = torch.cuda.get_device_properties(0)
    print(f"gpu-check on {gpu.name}, compute capability {gpu.major}.{gpu.minor}, torch {torch.__version__}")
    if missing := missing_packages():
        print(f"missing: {', '.join(missing)}; steps that need them will fail")
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir(parents=True)
    table = ROOT / "bench" / "results" / f"{gpu.name.replace(' ', '-')}.md"
    # figures of another run are in the repository's history; here they could pass for this one's
    for old in (table, table.with_suffix(".json")):
        old.unlink(missing_ok=True)
    outcomes = run_all(steps(), PLACE, environment(f"{gpu.major}{gpu.minor}"))
    if table.exists():
        print(f"\n{table.read_text()}")
    bad = [done.name for done in outcomes if not done.good]
    print(f"not passed: {', '.join(bad)}; logs in {PLACE}" if bad else f"all {len(outcomes)} steps passed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

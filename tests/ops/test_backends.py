"""Choosing a backend, refusing one, and what an installation without compiled code does."""

import os
import subprocess
import sys

import pytest
import torch

from emsr_fast import BackendError, _backends, atrous_details, doctor
from emsr_fast.ops import OPERATORS

DETAILS = OPERATORS["atrous_details"]
X = torch.rand(1, 1, 8, 8)


def python(code, **environment):
    """Run ``code`` in a fresh interpreter and return what it printed."""
    result = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return result.stdout.strip()


def test_named_backend_that_cannot_run_says_why():
    with pytest.raises(BackendError, match="backend 'cuda' cannot run: x is on cpu, cuda needs a CUDA device"):
        atrous_details(X, backend="cuda")
    with pytest.raises(BackendError, match=r"cpp has no torch.float16 kernel"):
        atrous_details(X.half(), backend="cpp")
    with pytest.raises(
        BackendError, match="backend 'fast' is unknown: use auto or some of cuda, triton, cpp, reference"
    ):
        atrous_details(X, backend="fast")


def test_a_preference_is_an_order_and_a_limit():
    with _backends.use_backend("cuda,reference"):
        assert DETAILS.choose(X, 3) == "reference"
    with _backends.use_backend("cuda"), pytest.raises(BackendError, match="needs a CUDA device"):
        atrous_details(X)
    with _backends.use_backend("reference"):
        assert DETAILS.choose(X, 3, backend="cpp") == "cpp"


def test_auto_takes_what_runs():
    assert DETAILS.choose(X, 3) == "cpp"
    assert DETAILS.choose(X.half(), 3) == "reference"


def test_a_kernel_that_no_gpu_has_confirmed_runs_only_where_it_is_named(monkeypatch):
    def call(channels):
        halves = torch.zeros(1, channels, 4, 4).half(), torch.zeros(channels, channels, 3, 3).half()
        return (*halves, "none", None, None)

    # as on a machine where every backend runs
    monkeypatch.setattr(_backends, "why_not", lambda *_: None)
    convolution = OPERATORS["conv3x3"]
    assert convolution.choose(*call(64)) == "triton"
    assert DETAILS.choose(X, 3) == "cuda"
    assert convolution.choose(*call(64), backend="cuda") == "cuda"
    with _backends.use_backend("cuda,triton"):
        assert convolution.choose(*call(64)) == "cuda"
        assert convolution.choose(*call(32)) == "triton"


def test_the_environment_chooses():
    code = (
        "import torch; from emsr_fast.ops import OPERATORS;"
        "print(OPERATORS['atrous_details'].choose(torch.rand(1, 16, 4, 4), 3))"
    )
    assert python(code) == "cpp"
    assert python(code, EMSR_FAST_BACKEND="reference") == "reference"


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_every_instruction_set_gives_the_same_result(isa, tmp_path):
    code = (
        "import torch, emsr_fast; torch.manual_seed(0); x = torch.rand(1, 1, 45, 50);"
        "y = emsr_fast.load_model()(x).detach(); torch.save((x, y), 'out.pt')"
    )
    code = f"import os; os.chdir({str(tmp_path)!r}); {code}"
    environment = {**os.environ, "EMSR_FAST_CPU_ISA": isa}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    if "the best this build and CPU have" in result.stderr:
        pytest.skip(f"this CPU has no {isa}")
    assert result.returncode == 0, result.stderr
    x, y = torch.load(tmp_path / "out.pt")
    from emsr_fast import load_model

    with torch.no_grad(), _backends.use_backend("reference"):
        torch.testing.assert_close(y, load_model()(x), rtol=0, atol=1e-5)


def test_an_unknown_instruction_set_is_refused():
    code = "import emsr_fast, torch; emsr_fast.atrous_details(torch.rand(1, 1, 4, 4), backend='cpp')"
    environment = {**os.environ, "EMSR_FAST_CPU_ISA": "mmx"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "EMSR_FAST_CPU_ISA is 'mmx': use baseline, avx2 or avx512" in result.stderr


WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == "triton" or name.startswith("triton.") or name == "emsr_fast._C":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
import torch, emsr_fast
from emsr_fast import _native
from emsr_fast.ops import OPERATORS
assert _native.why_missing, "the compiled module was found"
x = torch.rand(1, 1, 9, 9)
details = OPERATORS["atrous_details"]
assert details.choose(x, 3) == "reference"
assert emsr_fast.load_model()(x).shape == (1, 1, 27, 27)
print(details.why_not("cpp", x, 3))
"""


def test_everything_works_without_compiled_code_and_triton():
    assert "the compiled module is not installed" in python(WITHOUT)


def test_kernels_are_safe_after_fork_and_in_threads():
    code = """
import os, threading, torch, emsr_fast
torch.set_num_threads(2)
x = torch.rand(1, 1, 300, 300)
expected = emsr_fast.atrous_details(x, backend="cpp")
child = os.fork()
if child == 0:
    same = torch.equal(emsr_fast.atrous_details(x, backend="cpp"), expected)
    os._exit(0 if same else 1)
assert os.waitpid(child, 0)[1] == 0
wrong = []
def work():
    for _ in range(50):
        if not torch.equal(emsr_fast.atrous_details(x, backend="cpp"), expected):
            wrong.append(1)
threads = [threading.Thread(target=work) for _ in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
print(len(wrong))
"""
    assert python(code) == "0"


def test_the_doctor_shows_every_backend_on_one_screen():
    text = doctor.report()
    for name in (*_backends.BACKENDS, "torch", "threads"):
        assert name in text
    assert "yes" in text
    assert len(text.splitlines()) <= 40


def test_the_doctor_survives_wrong_settings():
    for wrong in ({"EMSR_FAST_BACKEND": "foo"}, {"EMSR_FAST_CPU_ISA": "foo"}):
        assert "foo" in python("from emsr_fast import doctor; print(doctor.report())", **wrong)


def test_a_wrong_instruction_set_is_not_passed_over():
    code = "import torch, emsr_fast; emsr_fast.atrous_details(torch.rand(1, 1, 4, 4))"
    with pytest.raises(subprocess.CalledProcessError):
        python(code, EMSR_FAST_CPU_ISA="mmx")

"""The package installs in every supported way and is then loaded from where it was installed."""

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.packaging

PROBE = """
import json, torch, emsr_fast
from emsr_fast import _native
from emsr_fast.ops import OPERATORS
details = OPERATORS["atrous_details"]
x = torch.rand(1, 1, 20, 20)
with torch.no_grad():
    shape = list(emsr_fast.load_model()(x).shape)
import emsr_fast.kernels
print(json.dumps({
    "home": emsr_fast.__file__, "kernels": emsr_fast.kernels.__file__, "backend": details.choose(x, 3),
    "shape": shape, "cuda": None if _native.why_missing else _native._C.built_with_cuda, "missing": _native.why_missing,
}))
"""


def run(*command, cwd, **environment):
    # the tests' own source tree must not be found by accident
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "EMSR_CUDA", "EMSR_FAST_NO_NATIVE")}
    result = subprocess.run(command, cwd=cwd, env={**clean, **environment}, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{command}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return result.stdout


@pytest.fixture
def fresh(tmp_path):
    """A new environment that sees this one's dependencies behind its own packages; returns its interpreter."""
    home = tmp_path / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", str(home), cwd=tmp_path)
    site = home / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    dependencies = tmp_path / "dependencies"
    dependencies.mkdir()
    for package in Path(sysconfig.get_path("purelib")).iterdir():
        # all but this package: it would hide the one under test
        if not package.name.startswith(("emsr_fast", "__editable__")):
            (dependencies / package.name).symlink_to(package)
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    return home / "bin" / "python"


def install(python, *what, cwd, **environment):
    command = (sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--force-reinstall", *what)
    run(*command, cwd=cwd, **environment)


def probe(python, tmp_path):
    return json.loads(run(str(python), "-c", PROBE, cwd=tmp_path))


def copy_of_the_sources(tmp_path):
    """Return a copy of what a clone holds, so that builds leave nothing behind here."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    copy = tmp_path / "sources"
    for name in listed.stdout.splitlines():
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    return copy


def test_wheel_from_a_clone_with_all_kernels(tmp_path, fresh):
    sources = copy_of_the_sources(tmp_path)
    # for one GPU: that the kernels compile for every other is what tests/kernels shows
    command = (sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", "wheels", str(sources))
    run(*command, cwd=tmp_path, EMSR_CUDA_ARCHITECTURES="90-real")
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for wanted in (
        "emsr_fast/py.typed",
        "emsr_fast/weights/emsr-x3-small.safetensors",
        "emsr_fast/kernels/triton/atrous.py",
    ):
        assert wanted in names
    assert not [n for n in names if n.startswith(("kernels/", "tests/", "bench/"))]
    install(fresh, str(wheel), cwd=tmp_path)
    found = probe(fresh, tmp_path)
    assert found["home"].startswith(str(tmp_path / "environment"))
    assert found["kernels"].startswith(str(tmp_path / "environment"))
    assert (found["backend"], found["shape"]) == ("cpp", [1, 1, 60, 60])
    nvcc = subprocess.run(["which", "nvcc"], capture_output=True, check=False).returncode == 0
    assert found["cuda"] == nvcc


def test_wheel_from_the_sdist(tmp_path, fresh):
    sources = copy_of_the_sources(tmp_path)
    run(sys.executable, "-m", "build", "--sdist", "-o", "dist", str(sources), cwd=tmp_path)
    (sdist,) = (tmp_path / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {"CMakeLists.txt", "csrc/cpu/atrous.cpp", "kernels/cuda/atrous.cu", "LICENSE", "CITATION.cff"} <= names
    install(fresh, str(sdist), cwd=tmp_path, EMSR_CUDA="OFF")
    found = probe(fresh, tmp_path)
    assert found["home"].startswith(str(tmp_path / "environment"))
    assert (found["backend"], found["cuda"]) == ("cpp", False)


def test_editable_install_twice(tmp_path, fresh):
    sources = copy_of_the_sources(tmp_path)
    for _ in range(2):  # the second time must not trip over what the first left behind
        install(fresh, "-e", str(sources), cwd=tmp_path, EMSR_CUDA="OFF")
        found = probe(fresh, tmp_path)
        assert found["home"].startswith(str(sources))
        assert found["kernels"].startswith(str(sources / "kernels"))
        assert found["backend"] == "cpp"


def test_a_deleted_module_is_not_installed_again(tmp_path, fresh):
    sources = copy_of_the_sources(tmp_path)
    ghost = sources / "emsr_fast" / "ghost.py"
    ghost.write_text("value = 1\n")
    install(fresh, str(sources), cwd=tmp_path, EMSR_FAST_NO_NATIVE="1")
    ghost.unlink()
    install(fresh, str(sources), cwd=tmp_path, EMSR_FAST_NO_NATIVE="1")
    (site,) = (tmp_path / "environment" / "lib").glob("python*/site-packages/emsr_fast")
    assert (site / "errors.py").exists()
    assert not (site / "ghost.py").exists()


def test_without_compiled_code(tmp_path, fresh):
    sources = copy_of_the_sources(tmp_path)
    # what an editable install leaves there is not for others
    (sources / "emsr_fast" / f"_C{sysconfig.get_config_var('EXT_SUFFIX')}").write_bytes(b"of another machine")
    # no compiler anywhere: the build must not look for one
    install(fresh, str(sources), cwd=tmp_path, EMSR_FAST_NO_NATIVE="1", CXX="/nonexistent/c++", CC="/nonexistent/cc")
    found = probe(fresh, tmp_path)
    assert found["home"].startswith(str(tmp_path / "environment"))
    assert (found["backend"], found["shape"], found["cuda"]) == ("reference", [1, 1, 60, 60], None)
    assert not list(Path(found["home"]).parent.glob("_C*.so"))
    assert "is not installed" in found["missing"]


def test_a_missing_compiler_is_explained(tmp_path, fresh):
    sources = copy_of_the_sources(tmp_path)
    command = (sys.executable, "-m", "pip", "--python", str(fresh), "install", "--no-deps", str(sources))
    environment = {**os.environ, "CXX": "/nonexistent/c++", "EMSR_CUDA": "OFF"}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "EMSR_FAST_NO_NATIVE=1 installs without compiled code" in result.stdout + result.stderr

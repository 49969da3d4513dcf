"""Rules of the house that a reader cannot see break: see CONTRIBUTING.md."""

import subprocess
import sys
from pathlib import Path

import pytest

import emsr_fast

ROOT = Path(__file__).parents[2]
SOURCES = [
    p for folder in ("emsr_fast", "kernels", "tests", "bench", "examples") for p in (ROOT / folder).rglob("*.py")
]
NATIVE = [
    p for folder in ("csrc", "kernels") for p in (ROOT / folder).rglob("*") if p.suffix in (".cpp", ".h", ".cu", ".cuh")
]
# reference/published.py is a whole network, for comparison, and no operator
OPERATORS = [p.stem for p in (ROOT / "emsr_fast" / "reference").glob("[!_]*.py") if p.stem != "published"]


def test_only_native_touches_the_compiled_module():
    for path in (ROOT / "emsr_fast").rglob("*.py"):
        if path.name != "_native.py":
            text = path.read_text()
            assert "import _C" not in text, path
            assert "data_ptr" not in text, path


def test_nobody_imports_kernels_by_its_folder():
    for path in SOURCES:
        lines = path.read_text().splitlines()
        assert not any(line.strip().startswith(("import kernels", "from kernels")) for line in lines), path


@pytest.mark.parametrize("operator", OPERATORS)
def test_an_operator_has_its_files(operator):
    composed = operator == "residual_block"  # on a CPU it is two of conv3x3
    for name in (
        f"emsr_fast/ops/{operator}.py",
        f"csrc/{operator}.h",
        *(() if composed else (f"csrc/cpu/{operator}.cpp",)),
        f"tests/ops/test_{operator}.py",
        f"bench/ops/bench_{operator}.py",
    ):
        assert (ROOT / name).is_file(), name


def test_no_file_is_longer_than_a_reader_can_hold():
    long = {str(p.relative_to(ROOT)): n for p in SOURCES + NATIVE if (n := len(p.read_text().splitlines())) > 330}
    assert not long


def test_tests_lie_in_the_folder_of_their_room():
    # kernels/, bench/ and the house are rooms, too; helpers, data and sources in C++ belong to several
    rooms = {p.parent.name for p in (ROOT / "emsr_fast").glob("*/__init__.py")} | {"kernels", "house"}
    shared = {"helpers", "data", "native"}
    assert {p.name for p in (ROOT / "tests").glob("*.py")} == {"conftest.py"}
    assert {p.name for p in (ROOT / "tests").iterdir() if any(p.glob("*.*"))} <= rooms | shared
    assert {p.name for p in (ROOT / "bench").glob("*.py")} == {"conftest.py"}


def test_every_cuda_file_is_compiled():
    listed = (ROOT / "CMakeLists.txt").read_text()
    for path in (ROOT / "kernels" / "cuda").glob("*.cu"):
        assert f"kernels/cuda/{path.name}" in listed


def test_public_names_exist_and_have_docstrings():
    for name in emsr_fast.__all__:
        assert getattr(emsr_fast, name).__doc__ or name == "__version__"
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        emsr_fast.nothing  # noqa: B018


def test_importing_the_package_loads_neither_torch_nor_numpy():
    code = "import sys, emsr_fast; print([m for m in ('torch', 'numpy', 'zarr') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_versions_agree():
    assert f'version = "{emsr_fast.__version__}"' in (ROOT / "pyproject.toml").read_text()
    assert f"version: {emsr_fast.__version__}" in (ROOT / "CITATION.cff").read_text()
    assert f"## {emsr_fast.__version__}" in (ROOT / "CHANGELOG.md").read_text()

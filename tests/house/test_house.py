"""Rules of the house that a reader cannot see break: see CONTRIBUTING.md."""

import ast
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import emsr_fast
from emsr_fast.io.formats import FORMATS
from emsr_fast.ops import OPERATORS
from emsr_fast.ops._operator import Operator

ROOT = Path(__file__).parents[2]
SOURCES = [
    p for folder in ("emsr_fast", "kernels", "tests", "bench", "examples") for p in (ROOT / folder).rglob("*.py")
]
NATIVE = [
    p for folder in ("csrc", "kernels") for p in (ROOT / folder).rglob("*") if p.suffix in (".cpp", ".h", ".cu", ".cuh")
]
# the file of each operator is named as the module that declares it
FILES = {operator.check.__module__.rpartition(".")[2]: operator for operator in OPERATORS.values()}


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


@pytest.mark.parametrize("name", FILES)
def test_an_operator_has_the_files_that_it_declares(name):
    kernels = FILES[name].kernels
    wanted = [
        f"emsr_fast/reference/{name}.py",
        f"emsr_fast/ops/{name}.py",
        f"csrc/{name}.h",
        f"tests/ops/test_{name}.py",
        f"bench/ops/bench_{name}.py",
    ]
    # residual_block runs as two of conv3x3 there
    composed = name == "residual_block"
    if "cpp" in kernels and not composed:
        wanted.append(f"csrc/cpu/{name}.cpp")
    if "triton" in kernels and not composed:
        wanted.append(f"kernels/triton/{name}.py")
    if "cuda" in kernels:
        wanted.append(f"kernels/cuda/{name}.cu")
    assert [path for path in wanted if not (ROOT / path).is_file()] == []


def test_every_kernel_file_is_declared():
    for folder, backend in (
        ("csrc/cpu/*.cpp", "cpp"),
        ("kernels/triton/*.py", "triton"),
        ("kernels/cuda/*.cu", "cuda"),
    ):
        others = {"__init__", "caches", "dispatch", "isa", "parallel", "runtime_info"}
        # what does not fit into the file of an operator: its name comes first
        parts = tuple(f"{name}_" for name in FILES)
        for path in ROOT.glob(folder):
            known = path.stem in others or path.stem.startswith(parts)
            assert known or backend in FILES[path.stem].kernels, path
    # reference/published.py is a whole network, for comparison, and no operator
    references = {path.stem for path in (ROOT / "emsr_fast" / "reference").glob("[!_]*.py")}
    assert references == {*FILES, "published"}


def test_the_walk_in_contributing_names_every_file():
    walk = (ROOT / "CONTRIBUTING.md").read_text().partition("## An operator from nothing")[2].partition("## Rules")[0]
    for path in re.findall(r"`([\w/]+\.(?:py|pyi|cpp|cu|h|txt))`", walk):
        assert (ROOT / path).is_file() or (ROOT / "emsr_fast" / path).is_file(), path
    for name in ("atrous_details", "ops/__init__.py", "_native.py", "bindings.cpp", "dispatch.cpp", "CMakeLists.txt"):
        assert name in walk
    assert set(re.findall(r"^           (\w+)=", walk, re.MULTILINE)) <= {f.name for f in fields(Operator)}


def test_the_network_knows_no_way_around_it():
    text = (ROOT / "emsr_fast" / "model" / "network.py").read_text()
    assert not re.search(r"^\s*(from|import) .*(cuda_graphs|engine)", text, re.MULTILINE)


def test_no_file_is_longer_than_a_reader_can_hold():
    long = {str(p.relative_to(ROOT)): n for p in SOURCES + NATIVE if (n := len(p.read_text().splitlines())) > 300}
    assert not long


def test_tests_lie_in_the_folder_of_their_room():
    # kernels/, bench/ and the house are rooms, too; helpers, data and sources in C++ belong to several
    rooms = {p.parent.name for p in (ROOT / "emsr_fast").glob("*/__init__.py")} | {"kernels", "house"}
    shared = {"helpers", "data", "native"}
    assert {p.name for p in (ROOT / "tests").glob("*.py")} == {"conftest.py"}
    assert {p.name for p in (ROOT / "tests").iterdir() if any(p.glob("*.*"))} <= rooms | shared
    assert {p.name for p in (ROOT / "bench").glob("*.py")} == {"conftest.py"}


# who writes without publish.py, and where: never under the name of a file that users get
WRITERS = {
    "publish": "publishes",
    "leftovers": "gives an old output its name back",
    "evaluate.job": "in the staged folder of the report",
    "pair.write": "in the staged folder of the pair set",
    "io.writers.mrc": "in a staged file",
    "train.finetuned_output": "in staged files",
    "train.state": "in a staged file",
    "train.output_folder": "in a staged file",
    "train.finetune": "in a staged folder",
    "train.records": "appends rows to the log of a run",
    "engine.cache": "in its own folder, under a hidden name until it is complete",
    "infer.completion": "a lock",
    "infer.written": "appends records to a run's folder",
    "cli.streams": "the null device",
    "bench.machine": "a counter of the kernel",
}
WRITING = ("replace", "rename", "move", "mkstemp", "NamedTemporaryFile", "copy", "copyfile")


def writes(source):
    """Yield the calls by which ``source`` writes files without ``publish.py``."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        last = name.rpartition(".")[2]
        modes = [str(argument.value) for argument in node.args if isinstance(argument, ast.Constant)]
        if (
            (name.startswith(("os.", "shutil.", "tempfile.")) and last in WRITING)
            or last in ("write_text", "write_bytes")
            or name == "torch.save"
        ):
            yield name
        elif last in ("rename", "replace") and len(node.args) == 1 and not node.keywords:
            yield name  # of a path: that of a text takes two arguments
        elif last == "open" and any(re.fullmatch(r"[wxa][bt+]*|r[bt]*\+[bt]*", mode) for mode in modes):
            yield name


def test_only_publish_writes_files_under_their_final_names():
    home = ROOT / "emsr_fast"
    found = {
        ".".join(path.relative_to(home).with_suffix("").parts)
        for path in home.rglob("*.py")
        if [*writes(path.read_text())]
    }
    assert found == set(WRITERS)


def test_threads_are_waited_for_to_their_end():
    # joining a thread of Python's own may return early
    found = [p.name for p in (ROOT / "emsr_fast").rglob("*.py") if "threading.Thread(" in p.read_text()]
    assert found == ["threads.py"]


@pytest.mark.parametrize(
    "code",
    ["os.replace(a, b)", "os.rename(a, b)", "path.rename(final)", "part.replace(final)", "tempfile.mkstemp()",
     "shutil.move(a, b)", "path.write_text(t)", "path.write_bytes(b)", "path.open('w')", "open(path, 'xb')",
     "path.open('a', newline='')", "torch.save(content, path)"],
)  # fmt: skip
def test_every_way_to_write_a_file_is_seen(code):
    assert [*writes(code)]
    assert not [*writes("text.replace('a', 'b'); replace(run, plan=plan); path.open('rb'); open(path)")]


# words that readers stumble over, and what to write instead
STUMBLING = {
    r"\(s\)": "wording.counted",
    r"\bmend": "correct",
    r"\b(file|folder|it|that|which|\}) (is|are) no (?!longer\b)": "is not a",
}


def test_errors_use_the_words_that_readers_expect():
    for path in (ROOT / "emsr_fast").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and node.exc is not None:
                for words, instead in STUMBLING.items():
                    assert not re.search(words, ast.unparse(node.exc)), f"{path.name}:{node.lineno}: write {instead!r}"


def test_readers_and_writers_have_one_module_for_each_format():
    readers, writers = {known.reader for known in FORMATS}, {known.writer for known in FORMATS} - {None}
    assert readers == modules_with("open_source", "readers")
    assert writers == modules_with("create_target", "writers")
    beside = {p.stem for p in (ROOT / "emsr_fast" / "io" / "readers").glob("*.py")} - {"__init__"}
    assert beside == {name.split(".")[1] for name in readers if name.count(".") == 1}


def modules_with(function, folder):
    home = ROOT / "emsr_fast" / "io"
    return {
        ".".join(path.relative_to(home).with_suffix("").parts)
        for path in (home / folder).rglob("*.py")
        if f"\ndef {function}(" in path.read_text()
    }


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

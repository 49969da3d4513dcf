"""Imports, also those for types, go one way, as CONTRIBUTING.md says, and never in a circle."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from emsr_fast.io.formats import FORMATS

ROOT = Path(__file__).parents[2]
PLACES = {"emsr_fast": ROOT / "emsr_fast", "emsr_fast.kernels": ROOT / "kernels"}
FILES = {
    ".".join((package, *path.relative_to(folder).with_suffix("").parts)).removesuffix(".__init__"): path
    for package, folder in PLACES.items()
    for path in folder.rglob("*.py")
}


# modules that import others by names put together while they run: those of the formats are added below
LOADERS = {
    "emsr_fast",
    "emsr_fast.engine",
    "emsr_fast.model",
    "emsr_fast.io.registry",
    "emsr_fast.io.readers.parts.packed",  # gzip, bz2, lzma
    "emsr_fast.convert.tensorrt_builder",  # TensorRT's packages
}


def homes(package, path):
    """Return where the public names of a package come from, which it may load on first use."""
    found = {}
    if path.name == "__init__.py":
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(package):
                found |= {alias.name: node.module for alias in node.names}
    return found


HOMES = {name: homes(name, path) for name, path in FILES.items()}


def resolved(module, names):
    """Return the module of ours that ``module.name.name`` is, or comes from."""
    for name in names:
        if f"{module}.{name}" in FILES:
            module = f"{module}.{name}"
            continue
        while module != (home := HOMES[module].get(name, module)):
            module = home
        break
    return module


def imported(source, name=""):
    """Yield the modules of ours that ``source``, the text of module ``name``, imports, for types or to run."""
    tree = ast.parse(source)
    bound = set()  # names of the whole package
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == "emsr_fast":
                    yield resolved("emsr_fast", alias.name.split(".")[1:])
                    bound |= {alias.asname or "emsr_fast"} if alias.name == "emsr_fast" or not alias.asname else set()
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                pytest.fail(f"{ast.unparse(node)}: write the whole name")
            if node.module in FILES:
                yield from (resolved(node.module, [alias.name]) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            what = node.args[0]
            if isinstance(what, ast.Constant):
                if str(what.value).partition(".")[0] == "emsr_fast":
                    yield resolved("emsr_fast", what.value.split(".")[1:])
            elif name not in LOADERS:
                pytest.fail(f"{name}: {ast.unparse(node)}: write the name of the module, or an import")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            root, *names = ast.unparse(node).split(".")
            if root in bound:
                yield resolved("emsr_fast", names)


GRAPH = {name: sorted({*imported(path.read_text(), name)} - {name}) for name, path in FILES.items()}
GRAPH["emsr_fast.io.registry"] += [
    f"emsr_fast.io.{module}" for known in FORMATS for module in (known.reader, known.writer) if module
]


def rooms_in_order():
    """Return the level of each room, 0 the lowest, as CONTRIBUTING.md has them."""
    (block,) = re.findall(r"^## Order.*?```\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.M | re.S)
    lines = [line.split("#")[0].split() for line in block.strip().splitlines()]
    return {room: -level for level, line in enumerate(lines) for room in line}


def room_of(module):
    """Return the room of a module; nothing for the package itself, which holds names that load on first use."""
    return module.removeprefix("emsr_fast").lstrip(".").split(".")[0]


ROOMS = sorted({room_of(name) for name in FILES} - {""})


def test_nothing_below_imports_anything_above():
    levels = rooms_in_order()
    assert set(ROOMS) == set(levels)
    upwards = [
        f"{name} imports {other}"
        for name, others in GRAPH.items()
        for other in others
        if (above := room_of(name)) and (below := room_of(other)) not in ("", above) and levels[below] >= levels[above]
    ]
    assert not upwards


@pytest.mark.parametrize("room", ROOMS)
def test_no_imports_run_in_a_circle(room):
    # within a room: between rooms the order above allows none
    graph = {name: [o for o in others if room_of(o) == room] for name, others in GRAPH.items() if room_of(name) == room}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_every_import_is_found():
    # otherwise the two above would pass for want of anything to look at
    assert "emsr_fast.io.formats" in GRAPH["emsr_fast.infer.prepare"]
    assert "emsr_fast.io.readers.mrc" in GRAPH["emsr_fast.io.registry"]
    assert "emsr_fast.kernels.triton.atrous" in GRAPH["emsr_fast.ops.atrous"]


@pytest.mark.parametrize(
    "code",
    [
        "import emsr_fast.cli",
        "from emsr_fast import cli",
        "from emsr_fast.cli import main",
        "def f():\n    import emsr_fast.cli as c",
        "if TYPE_CHECKING:\n    import emsr_fast.cli",
        "if not TYPE_CHECKING:\n    import emsr_fast.cli",
        "if TYPE_CHECKING or True:\n    import emsr_fast.cli",
        "try:\n    pass\nfinally:\n    import emsr_fast.cli",
        "import importlib\nimportlib.import_module('emsr_fast.cli')",
        "from importlib import import_module\nimport_module('emsr_fast.cli')",
        "__import__('emsr_fast.cli')",
        "import emsr_fast\nemsr_fast.cli.main()",
        "import emsr_fast as e\ne.cli.main()",
    ],
)
def test_no_way_to_import_hides_one(code):
    assert "emsr_fast.cli" in set(imported(code))


def test_public_names_lead_to_the_module_that_has_them():
    assert "emsr_fast.infer.array" in set(imported("import emsr_fast\nemsr_fast.super_resolve"))
    assert list(imported("from emsr_fast import super_resolve, errors")) == [
        "emsr_fast.infer.array",
        "emsr_fast.errors",
    ]
    assert list(imported("from emsr_fast import load_model")) == ["emsr_fast.model.zoo"]
    with pytest.raises(pytest.fail.Exception, match="write the name of the module"):
        list(imported("importlib.import_module(name)"))


def test_what_is_plain_python_beside_a_kernel_has_types():
    # mypy cannot ask for them: what @triton.jit compiles is in the same files, and is Triton's language
    for path in (ROOT / "kernels").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and not any("jit" in ast.unparse(d) for d in node.decorator_list):
                parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                assert node.returns, f"{path}: {node.name}"
                assert all(parameter.annotation for parameter in parameters), f"{path}: {node.name}"

"""Imports go one way, by the order in CONTRIBUTING.md, and never in a circle; Triton's neighbours are typed."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = {"emsr_fast": ROOT / "emsr_fast", "emsr_fast.kernels": ROOT / "kernels"}
FILES = {
    ".".join((package, *path.relative_to(folder).with_suffix("").parts)).removesuffix(".__init__"): path
    for package, folder in PLACES.items()
    for path in folder.rglob("*.py")
}


def statements(tree, names_only=False):
    """Yield the imports of a module, in functions, too; those for type checkers only where names are asked for."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and not names_only:
            yield from statements(ast.Module(node.orelse, []))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        else:
            yield from statements(node, names_only)


def homes(package, path):
    """Return where the public names of a package come from: many load on first use, as its type checkers' part says."""
    found = {}
    if path.name == "__init__.py":
        for node in statements(ast.parse(path.read_text()), names_only=True):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(package):
                found |= {alias.name: node.module for alias in node.names}
    return found


HOMES = {name: homes(name, path) for name, path in FILES.items()}


def imported(source):
    """Yield the modules of ours that ``source`` imports."""
    for node in statements(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in FILES)
        elif node.level:
            pytest.fail(f"{ast.unparse(node)}: write the whole name")
        elif node.module in FILES:
            for alias in node.names:
                home = node.module
                while home != (further := HOMES[home].get(alias.name, home)):
                    home = further
                yield f"{home}.{alias.name}" if f"{home}.{alias.name}" in FILES else home


GRAPH = {name: sorted({*imported(path.read_text())} - {name}) for name, path in FILES.items()}


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
    assert "emsr_fast.io.registry" in GRAPH["emsr_fast.infer.prepare"]
    assert "emsr_fast.kernels.triton.atrous" in GRAPH["emsr_fast.ops.atrous"]
    code = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import emsr_fast.io\n"
    code += "def f():\n    from emsr_fast import super_resolve, errors\n    import emsr_fast.cli\n"
    assert list(imported(code)) == ["emsr_fast.infer.array", "emsr_fast.errors", "emsr_fast.cli"]


def test_what_is_plain_python_beside_a_kernel_has_types():
    # mypy cannot ask for them: what @triton.jit compiles is in the same files, and is Triton's language
    for path in (ROOT / "kernels").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and not any("jit" in ast.unparse(d) for d in node.decorator_list):
                parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                assert node.returns, f"{path}: {node.name}"
                assert all(parameter.annotation for parameter in parameters), f"{path}: {node.name}"

"""Commands killed before any of their steps: the old or the new output is whole, and the same command ends as ever.

The steps are those that Python announces of the process itself (``helpers/pausing``): renames, removals, locks. So a
step that is added to a command is tried without further ado.
"""

import hashlib
import json
import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import yaml
from safetensors import safe_open

import fields
from forks import Forks

CPU = ["--device", "cpu", "--input-voxel", "ignore"]
_TIMES = ("created", "build_s")


@pytest.fixture(scope="module")
def forks(tmp_path_factory):
    found = Forks(tmp_path_factory.mktemp("forks"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """The smallest inputs of each command, in a folder beside which the commands work."""
    folder = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    tifffile.imwrite(folder / "lr.tif", rng.integers(0, 255, (2, 16, 16), np.uint8))
    tifffile.imwrite(folder / "sr.tif", rng.integers(0, 255, (2, 48, 48), np.uint8))
    stack = Path(__file__).parents[2] / "examples" / "data" / "flyem_fibsem_10nm_48x192x192.tif"
    pixels = tifffile.imread(stack, key=range(1)).astype(np.float64)
    corner, hr_shape = (20, 30), (141, 138)
    centre = (np.array(corner) + np.array(hr_shape) / 2) / 3.33 - 0.5
    low = fields.acquired_lr(pixels, corner, hr_shape, centre, fields.matrix(3.36, 1.2), (57, 57))
    write_scan(folder / "pair_lr.tif", low, 33.3)
    write_scan(folder / "pair_hr.tif", pixels[20:161, 30:168], 10)
    settings = {
        "output": "set on the command line",
        "model": {"features": 16, "blocks": 1, "heads": 4},
        "sources": [{"hr": str(stack), "slices": "0:1", "rows": "0:96", "validation_slices": "40:41"}],
        **{"crop": 8, "batch": 1, "steps": 2, "validate_every": 1, "validation_crops": 1, "checkpoint_every": 1},
    }
    (folder / "train.yaml").write_text(yaml.safe_dump(settings))
    return folder


def write_scan(path, pixels, nm):
    sizes = {"PhysicalSizeZ": 0.02, "PhysicalSizeY": nm / 1000, "PhysicalSizeX": nm / 1000}
    image = np.rint(np.clip(pixels, 0, 255)).astype(np.uint8)[None]
    tifffile.imwrite(path, image, ome=True, photometric="minisblack", metadata={"axes": "ZYX", **sizes})


def content_of(path: Path) -> Any:
    """Return what a file holds, but for when it was made and the seconds that took."""
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            return {name: digest(file.get_tensor(name).numpy()) for name in sorted(file.keys())}
    if path.suffix == ".pt":
        content = torch.load(path, weights_only=True)
        return content["step"], {
            name: digest(value.contiguous().numpy()) for name, value in sorted(content["model"].items())
        }
    if path.name == "log.csv":
        return [line.rpartition(",")[0] for line in path.read_text().splitlines()]
    if path.parent.name == "cache" and path.suffix == ".json":
        return {name: value for name, value in json.loads(path.read_bytes()).items() if name not in _TIMES}
    return digest(path.read_bytes())


def digest(content):
    return hashlib.sha256(content).hexdigest()


def tree(path: Path) -> dict[str, Any]:
    """Return what lies at and below ``path``, hidden names too; nothing where it is not there."""
    found = [path, *sorted(path.rglob("*"))] if path.is_dir() else [path] if path.exists() else []
    return {str(one.relative_to(path)): "folder" if one.is_dir() else content_of(one) for one in found}


@dataclass(frozen=True)
class Case:
    """A command, and what it replaces."""

    arguments: Sequence[str]
    outputs: Sequence[str]  # a kill leaves each of them old or new
    before: str = ""  # Python code that runs before the command
    old: Sequence[str] = ()  # the command that made what is replaced,
    old_before: str = ""  # and the code before it
    other: Sequence[str] = ()  # a command whose outputs are whole too: one that ends at an earlier checkpoint
    first: str = ""  # steps are tried from the first one on that contains this
    way: str = "exchange"

    def again(self, folder: Path) -> Sequence[str]:
        """Return the same command after a kill: a training that has a checkpoint is continued."""
        resumes = self.arguments[:1] == ["train"] and (folder / "run" / "last.pt").exists()
        return [*self.arguments, *(["--resume"] if resumes and "--resume" not in self.arguments else [])]


def infer(name, *more, **options):
    return Case(["infer", "../inputs/lr.tif", "-o", name, *CPU, *more], [name], **options)


def replacing(name, **options):
    return infer(name, "--overwrite", old=infer(name, "--slices", "0:1").arguments, **options)


RUN = ["run/last.pt", "run/last.safetensors", "run/best.safetensors", "run/config.yaml", "run/sheets/step_0000001.png"]
TRAIN = ["train", "../inputs/train.yaml", "--device=cpu", "--output={folder}/run"]
EVALUATE = ["evaluate", "../inputs/sr.tif", "-o", "report"]
PAIR = ["pair", "../inputs/pair_lr.tif", "../inputs/pair_hr.tif", "-o", "set"]
# a graph takes 10 s to make; what is tried here is what becomes of the file
GRAPH = """
import onnx
from emsr_fast.export import job
graph = onnx.helper.make_graph([], "new", [], [])
content = onnx.helper.make_model(graph, producer_name="emsr_fast").SerializeToString()
job.to_onnx = lambda *args: content
job.check_against_pytorch = lambda *args: []
"""
CACHE = "os.environ['EMSR_FAST_CACHE'] = os.path.abspath('cache')\n"
FETCH = """
from emsr_fast.engine import cache
entry, payload = cache.fetch("onnx", {"emsr_fast": "1"}, lambda: (b"a graph", {}))
assert payload == b"a graph"
"""
DAMAGE = "entry.payload_path.write_bytes(b'a grap')"
END = "partial/journal.json"  # all but the publishing is done

CASES = {
    "infer a.ome.zarr": infer("a.ome.zarr"),
    "infer a.ome.zarr --overwrite": replacing("a.ome.zarr"),
    "infer a.tif": infer("a.tif", first=END),
    "infer a.tif --overwrite": replacing("a.tif"),
    "infer a.h5 --overwrite": replacing("a.h5", first=END),
    "infer a.mrc --overwrite": replacing("a.mrc", first=END),
    "evaluate": Case(EVALUATE, ["report"]),
    "evaluate --overwrite": Case([*EVALUATE, "--overwrite"], ["report"], old=[*EVALUATE, "--samples", "1"]),
    "pair": Case(PAIR, ["set"]),
    "pair --overwrite": Case([*PAIR, "--overwrite"], ["set"], old=[*PAIR, "--min-ncc", "0.5"]),
    "train": Case(TRAIN, RUN, other=[*TRAIN, "--steps=1"]),
    "train --resume": Case([*TRAIN, "--resume"], RUN, old=[*TRAIN, "--steps=1"]),
    "export": Case(["export", "-o", "a.onnx"], ["a.onnx"], before=GRAPH),
    "export --overwrite": Case(
        ["export", "-o", "a.onnx", "--overwrite"],
        ["a.onnx"],
        before=GRAPH,
        old=["export", "-o", "a.onnx"],
        old_before=GRAPH.replace('"new"', '"old"'),
    ),
    "preview": Case(["preview", "../inputs/lr.tif", "-o", "a.png"], ["a.png"]),
    "cache": Case([], [], before=CACHE + FETCH),
    "cache, a damaged entry": Case([], [], before=CACHE + FETCH, old_before=CACHE + FETCH + DAMAGE),
    "cache prune": Case(["cache", "prune", "--all"], [], before=CACHE, old_before=CACHE + FETCH),
}
# on a system that cannot exchange two names
CASES |= {
    f"{name}, two steps": replace(CASES[name], way="two steps")
    for name in CASES
    if name.endswith("--overwrite") and not name.startswith(("infer a.h5", "infer a.mrc"))
}


class Trial:
    """One case in one folder, which has the same path each time."""

    def __init__(self, case: Case, forks: Forks, inputs: Path, folder: Path) -> None:
        self.case, self._forks = case, forks
        self.work, self._kept, self._marker, log = (folder / name for name in ("work", "kept", "marker", "log"))
        (folder / "inputs").symlink_to(inputs)
        self.work.mkdir()
        if case.old or case.old_before:
            self._run(case.old, case.old_before)
        self.work.rename(self._kept)
        self._whole: dict[str, list[Any]] = {name: [] for name in case.outputs}
        for arguments in filter(None, [case.other, case.arguments or [""]]):
            self.begin_anew()
            self._note_whole()
            log.unlink(missing_ok=True)
            status, says = self._run([*filter(None, arguments)], case.before, log=str(log))
            assert status == 0, says
            self._note_whole()
        self._expected = tree(self.work)
        self.steps = log.read_text().splitlines()

    def begin_anew(self) -> None:
        """Put the folder back to where the command has not begun."""
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self._kept, self.work)

    def kill(self, number: int, sent: signal.Signals) -> None:
        """Kill the command before step ``number``, look at what is there, and give the same command again."""
        case, step = self.case, f"{sent.name} before step {number}"
        self.begin_anew()
        self._start(case.arguments, case.before, marker=str(self._marker), number=number)
        self._forks.await_stop(self._marker)
        status, says = self._forks.let_on(sent, self._marker)
        # a command may be done when it sees the signal; code that is no command ends as Python does
        assert status in (-sent, *(() if sent == signal.SIGKILL else (0, 128 + sent))), f"{step}: {says}"
        for name in case.outputs:
            assert self._found(name) in self._whole[name], f"{name}, {step}"
        done = all(self._found(name) == self._whole[name][-1] for name in case.outputs)
        status, says = self._run(case.again(self.work), case.before)
        assert status == 0 or (done and status in (2, 3) and tree(self.work) == self._expected), f"{step}: {says}"
        assert tree(self.work) == self._expected, step

    def _found(self, name: str) -> dict[str, Any]:
        path = self.work / name
        if self.case.way == "two steps" and not path.exists():
            # the moment between the two: the next command gives it its name back
            for aside in path.parent.glob(f".{path.name}.replaced-*"):
                return tree(aside)
        return tree(path)

    def _note_whole(self) -> None:
        for name, found in self._whole.items():
            found.append(tree(self.work / name))

    def _run(self, arguments: Sequence[str], before: str, **watch: Any) -> tuple[int, str]:
        self._start(arguments, before, **watch)
        return self._forks.end()

    def _start(self, arguments: Sequence[str], before: str, **watch: Any) -> None:
        placed = [word.format(folder=self.work) for word in arguments]
        self._forks.start(placed, self.work, before=before, way=self.case.way, **watch)


QUICK = ["infer a.ome.zarr --overwrite", "evaluate --overwrite", "pair", "train --resume", "export", "cache"]


@pytest.mark.parametrize("name", QUICK)
def test_killed_before_and_after_its_output_gets_its_name_a_command_loses_nothing(forks, inputs, tmp_path, name):
    # seconds: a real command runs five times
    trial = Trial(CASES[name], forks, inputs, tmp_path)
    taken = max(number for number, line in enumerate(trial.steps, 1) if line.startswith(("os.rename", "renameat2")))
    trial.kill(taken, signal.SIGKILL)
    if taken < len(trial.steps):
        trial.kill(taken + 1, signal.SIGKILL)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", CASES)
def test_killed_before_any_step_a_command_loses_nothing(forks, inputs, tmp_path, name):
    trial = Trial(CASES[name], forks, inputs, tmp_path)
    first = next(number for number, line in enumerate(trial.steps, 1) if CASES[name].first in line)
    for number in range(first, len(trial.steps) + 1):
        trial.kill(number, signal.SIGKILL)
        # the two that Python sees take one way through the code
        trial.kill(number, (signal.SIGTERM, signal.SIGHUP)[number % 2])

"""What a run remembers: read strictly, so that a damaged or edited journal is one line and exit 3, and never pixels."""

import copy
import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tifffile

from emsr_fast.cli import main
from emsr_fast.errors import VolumeError
from emsr_fast.infer.distributed import run_batch
from emsr_fast.infer.job import infer
from emsr_fast.infer.run import FORMAT, JOURNAL, Publication, Run
from emsr_fast.infer.strict_json import read_as
from emsr_fast.infer.worker import Worker
from emsr_fast.infer.workfolder import WorkFolder
from emsr_fast.wording import shell

OPTIONS = ["--tile=32", "--halo=0", "--max-memory=4MB", "--input-voxel=ignore", "--device=cpu", "--trust"]


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A folder with an input and a run of which the first of two shares is done."""
    folder = tmp_path_factory.mktemp("begun")
    rows, cols = np.mgrid[:64, :64]
    noise = np.random.default_rng(0).normal(0, 40, (8, 64, 64))
    pixels = (2000 + 1000 * np.sin(rows / 7) * np.cos(cols / 9) + noise).astype(np.uint16)
    tifffile.imwrite(folder / "in.tif", pixels, photometric="minisblack")
    words = ["infer", str(folder / "in.tif"), "-o", str(folder / "out.zarr"), *OPTIONS]
    assert main([*words, "--shard=1/2"]) == 0
    assert list((folder / "out.zarr.partial" / "volume" / "0").rglob("c/*/*/*"))
    return folder


@pytest.fixture
def run_of(begun, tmp_path):
    """A copy of that folder: the words of its command, and the work folder."""
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    words = ["infer", str(tmp_path / "in.tif"), "-o", str(tmp_path / "out.zarr"), *OPTIONS]
    return words, tmp_path / "out.zarr.partial"


def content_of(folder):
    return json.loads((folder / JOURNAL).read_text())


def with_checksum(run):
    """A journal's text around ``run`` as it would be if a program had written those values."""
    checksum = hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()
    return json.dumps({"format": FORMAT, "sha256": checksum, "run": run})


def tree_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def without(name):
    return lambda content: json.dumps({key: value for key, value in content.items() if key != name})


DAMAGED = {
    "empty": (lambda content: "", "is not JSON"),
    "a list": (lambda content: "[]", "has no format number"),
    "an object without anything": (lambda content: "{}", "has no format number"),
    "null": (lambda content: "null", "has no format number"),
    "cut": (lambda content: json.dumps(content)[:700], "is not JSON"),
    "zeros": (lambda content: "\0" * 500, "is not JSON"),
    "a number without end": (lambda content: "9" * 5000, "is not JSON: a number has thousands of digits"),
    "nested without end": (lambda content: "[" * 200_000, "nested too deep"),
    "older": (
        lambda content: json.dumps({"format": 1, "identity": {}, "plan": {}}),
        f"has format 1, and .* format {FORMAT}",
    ),
    "newer": (lambda content: json.dumps(content | {"format": FORMAT + 1}), f"has format {FORMAT + 1}"),
    "format as text": (lambda content: json.dumps(content | {"format": "2"}), "has format '2'"),
    "without its run": (without("run"), "lacks its part 'run'"),
    "without its checksum": (without("sha256"), "lacks its part 'sha256'"),
    "a run that is a list": (lambda content: with_checksum([]), r"run is \[\], not an object"),
    "a run without anything": (lambda content: with_checksum({}), r"run\.identity is missing"),
    "a run without a plan": (
        lambda content: with_checksum({k: v for k, v in content["run"].items() if k != "plan"}),
        r"run\.plan is missing",
    ),
    "a run with more": (lambda content: with_checksum(content["run"] | {"more": 1}), r"run\.more is not known"),
    "another type": (
        lambda content: with_checksum(content["run"] | {"pyramid": "yes"}),
        r"run\.pyramid is 'yes', not of type bool",
    ),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_journal_is_one_line_that_names_the_folder_to_delete(run_of, capsys, kind):
    words, folder = run_of
    damage, said = DAMAGED[kind]
    (folder / JOURNAL).write_text(damage(content_of(folder)))
    before = tree_of(folder)
    for more in ([], ["--shard=2/2"], ["--finish"], ["--dry-run"], ["--overwrite"]):
        assert main([*words, *more]) == 3
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert lines[0].startswith(f"error: {folder / JOURNAL} ")
        assert lines[0].endswith(f"delete the folder: {shell('rm', '-r', folder)}")
        with pytest.raises(VolumeError, match=said):
            Run.load(folder)
    assert tree_of(folder) == before


@pytest.mark.parametrize("text", ["{}", "[]", '{"format": 5, "sha256": "", "run": {"plan"'])
def test_the_process_ends_with_exit_3_and_no_traceback(run_of, text):
    words, folder = run_of
    (folder / JOURNAL).write_text(text)
    done = subprocess.run([sys.executable, "-m", "emsr_fast", *words], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (3, "", 1)
    assert f"{shell('rm', '-r', folder)}" in done.stderr


def test_bytes_that_are_no_text_are_refused(run_of, capsys):
    words, folder = run_of
    (folder / JOURNAL).write_bytes(b"\xff\xfe\x00")
    assert main(words) == 3
    assert f"{folder / JOURNAL} is not JSON" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["lost", "a folder", "a file in place of the work folder"])
@pytest.mark.parametrize("more", [[], ["--shard=2/2"], ["--dry-run"]], ids=str)
def test_a_work_folder_without_a_journal_is_refused_before_anything_is_loaded(run_of, capsys, what, more):
    words, folder = run_of
    (folder / JOURNAL).unlink()
    if what == "a folder":
        (folder / JOURNAL).mkdir()
    if what == "a file in place of the work folder":
        shutil.rmtree(folder)
        folder.write_text("mine")
    before = tree_of(folder.parent)
    assert main([*words, *more]) == 3
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {folder} holds no run: it has no {JOURNAL}; ")
    assert tree_of(folder.parent) == before


def test_an_empty_work_folder_as_a_kill_may_leave_it_is_taken(run_of):
    words, folder = run_of
    shutil.rmtree(folder)
    folder.mkdir()
    assert main(words) == 0
    assert not folder.exists()


EDITS = {
    "normalisation": lambda run: run["normalisation"].update(low=run["normalisation"]["low"] + 1),
    "bounds": lambda run: run["normalisation"].update(bounds=[-1.0, 3.0]),
    "plan": lambda run: run["plan"].update(halo=4),
    "model": lambda run: run["identity"]["model"].update(sha256="0" * 64),
    "model's path": lambda run: run["inputs"].update(model="emsr-x2-small"),
    "engine": lambda run: run["engine_options"].update(precision="fp16"),
    "trust": lambda run: run["trust"].update(gain=1.0),
    "output": lambda run: run["output"].update(dtype="uint8"),
    "truth test": lambda run: run.update(truth_test={"passed": True}),
}


@pytest.mark.parametrize("part", EDITS)
def test_an_edited_journal_is_refused_by_whoever_would_go_on(run_of, capsys, part):
    words, folder = run_of
    content = content_of(folder)
    EDITS[part](content["run"])
    (folder / JOURNAL).write_text(json.dumps(content))
    before = tree_of(folder)
    for more in ([], ["--shard=2/2"], ["--finish"]):
        assert main([*words, *more]) == 3
        assert "was edited or damaged: its checksum does not match" in capsys.readouterr().err
    final = folder.with_name("out.zarr")
    with pytest.raises(VolumeError, match="was edited or damaged"):
        Worker.open(final)
    assert isinstance(run_batch(str(final), "cpu", "command", [0]), VolumeError)
    assert tree_of(folder) == before


def parts_of(values, path=()):
    """The path of every part of JSON ``values``."""
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from parts_of(value, (*path, key))


def changed(run, path, change):
    """A copy of ``run`` after ``change(values, key)`` of the part at ``path``."""
    run = inner = copy.deepcopy(run)
    for key in path[:-1]:
        inner = inner[key]
    change(inner, path[-1])
    return run


def test_every_part_is_needed_and_has_its_type(run_of):
    _, folder = run_of
    run = content_of(folder)["run"]
    # below these are any JSON values, or as many as there are
    free = (("output", "provenance"), ("trust", "calibration", "measured_on"), ("identity", "input", "sampled_slices"))
    paths = [path for path in parts_of(run) if not any(path != start == path[: len(start)] for start in free)]
    assert len(paths) > 80
    for path in paths:
        for change in (dict.__delitem__, list.__delitem__, lambda values, key: values.__setitem__(key, [{}])):
            try:
                text = with_checksum(changed(run, path, change))
            except TypeError:
                continue  # a list is no dict
            (folder / JOURNAL).write_text(text)
            with pytest.raises(VolumeError, match="is not understood: run"):
                Run.load(folder)


def test_a_run_is_read_as_it_was_written(run_of, tmp_path):
    _, folder = run_of
    run = Run.load(folder)
    assert run.map_names == ("error", "disagreement", "residual")
    assert (run.output.shape, run.plan.tile) == ((8, 192, 192), (32, 32))
    name = os.fsdecode(b"/in/\xff.tif")
    other = dataclasses.replace(
        run,
        inputs=dataclasses.replace(run.inputs, path=name),
        publication=Publication("export/a.tif", ("12-3-4",), 7),
    )
    other.save(folder, folder / "unfinished")
    assert Run.load(folder) == other != run
    assert Run.load(folder).checksum == other.checksum


def test_a_run_goes_on_from_its_journal_to_the_same_bytes(run_of, tmp_path):
    words, _ = run_of
    again = [word if word != str(tmp_path / "out.zarr") else str(tmp_path / "whole.zarr") for word in words]
    assert main(words) == main(again) == 0
    ours, whole = (
        {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (tmp_path / "out.zarr", tmp_path / "whole.zarr")
    )
    titles = {name for name in ours if name == "zarr.json"}  # each holds its output's name
    assert {name: ours[name] for name in ours if name not in titles} == {
        name: whole[name] for name in whole if name not in titles
    }


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"block": [0, 0], "slices": {}}', '{"pixels": "many"}'])
@pytest.mark.parametrize("kind", ["failed", "bounded"])
def test_a_damaged_mark_of_a_block_is_one_line(run_of, capsys, kind, text):
    words, folder = run_of
    mark = folder / kind / "0-0-0.json"
    mark.write_text(text)
    assert main(words) == 3
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"error: {mark} is damaged (")
    assert line.endswith(f"delete the folder: {shell('rm', '-r', folder)}")
    assert WorkFolder(folder.with_name("out.zarr")).exists()


def test_a_stranger_among_what_stops_kept_is_left_alone(run_of, tmp_path):
    words, folder = run_of
    (folder / "stopped").mkdir()
    (folder / "stopped" / "notes.tiles").write_text("mine")
    assert infer(words[1], words[3], tile=32, halo=0, max_memory="4MB", input_voxel="ignore", device="cpu", trust=True)


@pytest.mark.parametrize(
    ("kind", "value"),
    [(float, True), (int, 1.0), (int, True), (str, None), (tuple[int, int], [1]), (np.dtype, "object"),
     (np.dtype, "V3"), (int | None, "1"), (dict[str, int], [1]), (dict[str, int], {"a": "1"})],
)  # fmt: skip
def test_json_values_of_another_type_are_refused(kind, value):
    with pytest.raises(ValueError, match=r"^part"):
        read_as(kind, value, "part")


def test_json_values_keep_their_digits():
    assert repr(read_as(tuple[float, float | None, int], [1, None, 2], "part")) == "(1, None, 2)"
    assert read_as(np.dtype, "uint16", "part") == np.dtype("uint16")

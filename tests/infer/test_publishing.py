"""The end of a run: whoever takes the output's name meanwhile keeps it, and a kill leaves the old or the new one."""

import hashlib
import json
import shutil
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import tifffile

from emsr_fast.errors import VolumeError
from emsr_fast.infer.job import infer
from emsr_fast.infer.trust_maps import map_path

SLICES = np.random.default_rng(0).normal(128, 20, (2, 104, 104)).astype(np.uint8)
OPTIONS = {"device": "cpu", "input_voxel": "ignore", "model": "emsr-x3-small"}


@pytest.fixture
def small(tmp_path):
    """Two small slices in a folder of their own."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    tifffile.imwrite(tmp_path / "in" / "in.tif", SLICES[:, :16, :16])
    return tmp_path / "in" / "in.tif"


@pytest.fixture
def with_structure(small):
    """Two slices that are large enough to measure their noise, as trust does."""
    tifffile.imwrite(small, SLICES)
    return small


def bytes_of(path):
    if not path.is_dir():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return {str(f.relative_to(path)): bytes_of(f) for f in sorted(path.rglob("*")) if f.is_file()}


def put_folder(path):
    path.mkdir()
    (path / "thesis.txt").write_text("years of work")


def put_volume(path):
    infer(path.parents[1] / "in" / "in.tif", path.parent / "theirs" / path.name, slices="0:1", **OPTIONS)
    (path.parent / "theirs" / path.name).rename(path)
    (path.parent / "theirs").rmdir()


def put_file(path):
    path.write_text("years of work")


@pytest.mark.parametrize("name", ["a.ome.zarr", "a.tif"])
@pytest.mark.parametrize(
    ("put", "overwrite"), [(put_folder, False), (put_file, False), (put_volume, False), (put_folder, True)]
)
def test_what_comes_there_during_the_run_is_kept_and_so_is_the_work(small, tmp_path, name, put, overwrite):
    output = tmp_path / "out" / name

    @contextmanager
    def meanwhile(lr_pixels):
        (tmp_path / "out" / "theirs").mkdir()
        put(output)
        shutil.rmtree(tmp_path / "out" / "theirs", ignore_errors=True)
        yield lambda done: None

    with pytest.raises(VolumeError, match=f"during the work, whose result is kept in .*{name}.partial") as refused:
        infer(small, output, progress=meanwhile, overwrite=overwrite, **OPTIONS)
    assert f"{output} exists" in str(refused.value)
    theirs = bytes_of(output)
    assert theirs
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == [name, f"{name}.partial"]
    with pytest.raises(VolumeError):
        infer(small, output, overwrite=overwrite, **OPTIONS)
    assert bytes_of(output) == theirs
    # moved out of the way, the same command goes on with what is done
    output.rename(tmp_path / "moved")
    assert infer(small, output, overwrite=overwrite, **OPTIONS)["blocks_done_before"] == 1
    (tmp_path / "again").mkdir()
    infer(small, tmp_path / "again" / name, **OPTIONS)
    assert bytes_of(output) == bytes_of(tmp_path / "again" / name)
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == [name]


def test_a_map_that_comes_there_during_the_run_is_kept_and_the_output_waits(with_structure, tmp_path):
    small = with_structure
    output = tmp_path / "out" / "a.tif"
    first = infer(small, tmp_path / "a.tif", trust=True, **OPTIONS)
    (theirs,) = (output.with_name(path.rpartition("/")[2]) for path in list(first["trust"].values())[:1])

    @contextmanager
    def meanwhile(lr_pixels):
        put_file(theirs)
        yield lambda done: None

    with pytest.raises(VolumeError, match=f"{theirs.name} exists.*is kept in"):
        infer(small, output, trust=True, progress=meanwhile, **OPTIONS)
    assert theirs.read_text() == "years of work"
    assert not output.exists()
    theirs.unlink()
    infer(small, output, trust=True, **OPTIONS)
    assert bytes_of(theirs) == bytes_of(tmp_path / theirs.name)


def test_a_broken_link_under_the_name_of_a_map_is_refused_before_the_work(with_structure, tmp_path):
    output = tmp_path / "out" / "a.tif"
    map_path(output, "residual").symlink_to("nowhere")
    with pytest.raises(VolumeError, match=r"residual\.tif is a broken link: not replaced; .*another name$"):
        infer(with_structure, output, trust=True, **OPTIONS)
    assert [path.name for path in output.parent.iterdir()] == ["a.trust-residual.tif"]


# forks runs that end before step 1, 2, ... of publishing; waits after each, and after the run that goes on with it
KILLED = """
import json, os, pathlib, shutil, sys, torch
sys.path.insert(0, sys.argv[1])
from kill_at import arm
import emsr_fast.engine, emsr_fast.model
from emsr_fast.infer import job, workfolder
from emsr_fast import renaming
torch.set_num_threads(1)
source, folder, name = map(pathlib.Path, sys.argv[2:5])
options, way, renames_only = json.loads(sys.argv[5]), sys.argv[6], sys.argv[7] == "True"
kept = folder.with_name("kept")
if way == "two steps":
    renaming._renameat2 = lambda *args: False
start = workfolder.WorkFolder.publish

def run(number):
    def armed(self, *args):
        arm(number, renames_only=renames_only)
        start(self, *args)
    child = os.fork()
    if child == 0:
        if number:
            workfolder.WorkFolder.publish = armed
        try:
            job.infer(source, folder / name, **options)
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    return os.waitpid(child, 0)[1]


chosen, renames_only = renames_only, False
run(1)  # all but the publishing
renames_only = chosen
shutil.copytree(folder, kept)
for number in range(1, 100):
    shutil.rmtree(folder)
    shutil.copytree(kept, folder)
    status = run(number)
    print(number, status, flush=True)
    if not sys.stdin.readline():
        break  # the test has failed
    print(run(0), flush=True)
    sys.stdin.readline()
    if status == 0:
        break
"""


@pytest.mark.parametrize("name", ["a.ome.zarr", "a.tif"])
def test_killed_after_any_rename_of_publishing_the_old_or_the_new_output_is_whole(
    request, with_structure, tmp_path, name
):
    kill_at_each_step(request, with_structure, tmp_path, name, "exchange", old=True, renames_only=True)


@pytest.mark.exhaustive
@pytest.mark.parametrize("way", ["exchange", "two steps"])
@pytest.mark.parametrize("name", ["a.ome.zarr", "a.tif"])
@pytest.mark.parametrize("old", [True, False])
def test_killed_before_any_step_of_publishing_the_old_or_the_new_output_is_whole(
    request, with_structure, tmp_path, name, way, old
):
    kill_at_each_step(request, with_structure, tmp_path, name, way, old=old, renames_only=False)


def kill_at_each_step(request, small, tmp_path, name, way, *, old, renames_only):
    helpers, folder = request.config.rootpath / "tests" / "helpers", tmp_path / "out"
    output, trust = folder / name, name.endswith(".tif")
    (tmp_path / "new").mkdir()
    infer(small, tmp_path / "new" / name, trust=trust, **OPTIONS)
    before, after = None, bytes_of(tmp_path / "new" / name)
    listed = sorted(entry.name for entry in (tmp_path / "new").iterdir())
    if old:
        infer(small, output, slices="0:1", trust=trust, **OPTIONS)
        before = bytes_of(output)
    options = json.dumps({**OPTIONS, "trust": trust, "overwrite": old})
    arguments = [helpers, small, folder, name, options, way, renames_only]
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    statuses = []
    try:
        while line := child.stdout.readline():
            number, status = map(int, line.split())
            statuses.append(status)
            found = bytes_of(output) if output.exists() else None
            if way == "two steps" and old and found is None:
                (aside,) = folder.glob(f".{name}.replaced-*")
                found = bytes_of(aside)
            assert found in (before, after), number
            begun = (folder / f"{name}.partial" / "journal.json").exists()
            print(file=child.stdin, flush=True)
            # where all is done, the same command refuses or does it again
            assert child.stdout.readline() == "0\n" or (found == after and not begun), number
            assert bytes_of(output) == after, number
            assert sorted(entry.name for entry in folder.iterdir()) == listed, number
            print(file=child.stdin, flush=True)
    finally:
        child.stdin.close()
        child.wait(60)
    assert child.returncode == 0
    assert statuses[-1] == 0
    assert statuses[:-1]
    assert set(statuses[:-1]) == {9}

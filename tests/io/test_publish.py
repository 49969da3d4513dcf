"""Outputs get their names in one step: old or new, whole, whatever happens; other data is never replaced."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from emsr_fast import leftovers, publish, renaming
from emsr_fast.errors import VolumeError
from emsr_fast.leftovers import tidy
from emsr_fast.publish import Staging, write_file
from emsr_fast.shield import shielded_from_signals


def anything(path):
    """The check of a caller that may replace whatever is there."""


def free(path):
    if os.path.lexists(path):
        raise VolumeError(f"output {path} exists")


def make(final, content, check=anything, folder=False):
    with Staging(final, check, folder=folder) as path:
        if folder:
            (path / "inner").mkdir()
            for name in ("a", "inner/b"):
                (path / name).write_text(content)
        else:
            path.write_text(content)


def content_of(path):
    if path.is_dir():
        return {str(file.relative_to(path)): file.read_text() for file in sorted(path.rglob("*")) if file.is_file()}
    return path.read_text()


def whole(content, folder):
    return {"a": content, "inner/b": content} if folder else content


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture(params=["exchange", "two steps"])
def each_way(request, monkeypatch):
    """With the exchange in one step, and as on a system without it."""
    if request.param == "two steps":
        monkeypatch.setattr(renaming, "_renameat2", lambda *args: False)


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("old", [None, False, True])  # nothing, a file, a folder
def test_the_new_one_takes_the_name_and_nothing_else_is_left(tmp_path, folder, old):
    final = tmp_path / "out"
    if old is not None:
        make(final, "old", folder=old)
    with Staging(final, anything, folder=folder) as path:
        assert path.parent == tmp_path
        assert path.name.startswith(f".out.partial-{os.getpid()}-")
        if old is not None:
            assert content_of(final) == whole("old", old)
        (path / "a" if folder else path).write_text("new")
    assert content_of(final) == ({"a": "new"} if folder else "new")
    assert names(tmp_path) == ["out"]


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_after_an_error_the_old_one_is_there_and_nothing_else(tmp_path, folder, error):
    final = tmp_path / "out"
    make(final, "old", folder=folder)
    with pytest.raises(error), Staging(final, anything, folder=folder):
        raise error
    assert content_of(final) == whole("old", folder)
    assert names(tmp_path) == ["out"]


def test_what_python_leaves_at_exit_is_removed(tmp_path):
    script = "import sys, pathlib; from emsr_fast.publish import Staging; Staging(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", script, tmp_path / "out"], check=True)
    assert not names(tmp_path)


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("theirs", [False, True])
def test_what_comes_there_during_the_work_is_kept(tmp_path, folder, theirs):
    final = tmp_path / "out"
    with (
        pytest.raises(VolumeError, match=r"out exists; it came there during the work, whose result is removed"),
        Staging(final, free, folder=folder),
    ):
        make(final, "theirs", folder=theirs)
    assert content_of(final) == whole("theirs", theirs)
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("folder", [False, True])
def test_what_comes_there_between_the_look_and_the_rename_is_kept(tmp_path, folder):
    final, looks = tmp_path / "out", []

    def look(path):
        free(path)
        looks.append(path)
        if len(looks) == 2:  # the last look: a program that is faster than our next step
            make(path, "theirs", folder=folder)

    with pytest.raises(VolumeError, match="out exists"), Staging(final, look, folder=folder):
        pass
    assert content_of(final) == whole("theirs", folder)
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("folder", [False, True])
def test_what_comes_there_between_the_look_and_the_exchange_is_kept(tmp_path, folder):
    final, looks = tmp_path / "out", []
    make(final, "old", folder=folder)

    def look(path):
        if content_of(path) != whole("old", folder):
            raise VolumeError(f"output {path} is not ours")
        looks.append(path)
        if len(looks) == 2:
            path.rename(tmp_path / "moved")
            make(path, "theirs", folder=folder)

    with pytest.raises(VolumeError, match="out is not ours"), Staging(final, look, folder=folder):
        pass
    assert content_of(final) == whole("theirs", folder)
    assert names(tmp_path) == ["moved", "out"]


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_without_an_exchange_the_old_one_is_put_back_where_the_rename_fails(tmp_path, monkeypatch, error):
    final = tmp_path / "out"
    make(final, "old", folder=True)
    monkeypatch.setattr(renaming, "_renameat2", lambda *args: False)
    rename = os.rename

    def fails(source, target, **options):
        if ".partial-" in str(source):
            raise OSError(error, os.strerror(error))
        rename(source, target, **options)

    monkeypatch.setattr(os, "rename", fails)
    with pytest.raises(OSError, match=os.strerror(error)):
        make(final, "new", folder=True)
    assert content_of(final) == whole("old", True)
    assert names(tmp_path) == ["out"]


def test_a_file_and_its_folder_are_synchronised_before_and_after_the_rename(tmp_path, monkeypatch):
    steps, fsync, take = [], os.fsync, publish._take_name

    def recorded(descriptor):
        steps.append(os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), tmp_path))
        fsync(descriptor)

    def taken(*args):
        steps.append("rename")
        return take(*args)

    monkeypatch.setattr(os, "fsync", recorded)
    monkeypatch.setattr(publish, "_take_name", taken)
    write_file(tmp_path / "out", b"content")
    part, *rest = steps
    assert part.startswith(".out.partial-")
    assert rest == ["rename", "."]
    steps.clear()
    make(tmp_path / "set", "content", folder=True)
    part = steps[-3]
    assert sorted(steps[:-2]) == sorted([part, f"{part}/a", f"{part}/inner", f"{part}/inner/b"])
    assert part.startswith(".set.partial-")
    assert steps[-2:] == ["rename", "."]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_waits_until_the_name_is_given(tmp_path, monkeypatch, number):
    rename, before = publish._take_name, signal.getsignal(number)

    class Signalled(BaseException):
        pass

    def stop(*args):
        raise Signalled

    def interrupted(*args):
        signal.raise_signal(number)
        return rename(*args)

    make(tmp_path / "out", "old", folder=True)
    monkeypatch.setattr(publish, "_take_name", interrupted)
    signal.signal(number, stop)
    try:
        with pytest.raises(Signalled):
            make(tmp_path / "out", "new", folder=True)
    finally:
        signal.signal(number, before)
    assert content_of(tmp_path / "out") == whole("new", True)
    assert names(tmp_path) == ["out"]


def test_signals_that_are_ignored_stay_ignored(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with shielded_from_signals():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_file_never_replaces_a_folder(tmp_path):
    make(tmp_path / "out", "theirs", folder=True)
    with pytest.raises(VolumeError, match="is a folder, not a file"):
        write_file(tmp_path / "out", b"ours")
    assert content_of(tmp_path / "out") == whole("theirs", True)


KILLED = """
import pathlib, sys
sys.path.insert(0, sys.argv[1])
from kill_at import arm
from emsr_fast import leftovers, publish, renaming
final, way, kind, number = pathlib.Path(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5])
leftovers.tidy(final)
if way == "two steps":
    renaming._renameat2 = lambda *args: False
with publish.Staging(final, lambda path: None, folder=kind == "folder") as path:
    if kind == "folder":
        (path / "inner").mkdir()
        for name in ("a", "inner/b"):
            (path / name).write_text("new")
    else:
        path.write_text("new")
    arm(number)
"""


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("way", ["exchange", "two steps"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_killed_before_any_step_the_old_one_or_the_new_one_is_whole(request, tmp_path, kind, way, old):
    final, folder = tmp_path / "out", kind == "folder"
    helpers = request.config.rootpath / "tests" / "helpers"
    before, after = whole("old", folder), whole("new", folder)
    allowed = [before, after] if old else [None, after]
    seen = []

    def run(number):
        command = [sys.executable, "-c", KILLED, helpers, final, way, kind, str(number)]
        return subprocess.run(command, timeout=60).returncode

    for number in range(1, 40):
        leftovers.remove(final)
        if old:
            make(final, "old", folder=folder)
        status = run(number)
        assert status in (0, -signal.SIGKILL)
        if way == "two steps" and not final.exists():
            tidy(final)  # as every command does first
        found = content_of(final) if final.exists() else None
        assert found in allowed, number
        seen.append(found)
        assert run(-1) == 0
        assert content_of(final) == after
        assert names(tmp_path) == ["out"], number
        if status == 0:
            break
    assert status == 0
    assert seen[0] == allowed[0]
    assert number > (4 if folder else 2)

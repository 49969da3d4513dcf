"""What killed processes left under hidden names is removed; what living ones use, and other names, stay."""

import os

from emsr_fast import renaming
from emsr_fast.leftovers import tidy
from emsr_fast.publish import Staging


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def make(final, content):
    with Staging(final, lambda path: None, folder=True) as path:
        (path / "a").write_text(content)


def test_without_an_exchange_another_process_leaves_the_old_one_where_it_is_for_a_moment(tmp_path, monkeypatch):
    final = tmp_path / "out"
    make(final, "old")
    monkeypatch.setattr(renaming, "_renameat2", lambda *args: False)
    rename = os.rename

    def between(source, target, **options):
        if ".partial-" in str(source):
            assert not final.exists()
            tidy(final)
            assert not final.exists()
        rename(source, target, **options)

    monkeypatch.setattr(os, "rename", between)
    make(final, "new")
    assert (final / "a").read_text() == "new"
    assert names(tmp_path) == ["out"]


def test_leftovers_of_the_living_and_of_others_stay(tmp_path):
    with Staging(tmp_path / "out", folder=True) as ours:
        dead = tmp_path / ".out.partial-1-0a1b2c"
        dead.mkdir()
        (tmp_path / ".out.partial-of-mine").touch()
        (tmp_path / ".outer.partial-1-0a1b2c").touch()
        tidy(tmp_path / "out")
        assert names(tmp_path) == sorted([ours.name, ".out.partial-of-mine", ".outer.partial-1-0a1b2c"])


def test_long_names_with_one_beginning_are_told_apart(tmp_path):
    first, second = (tmp_path / ("x" * 250 + end) for end in "ab")
    with Staging(first) as one, Staging(second) as other:
        assert one.name.partition(".partial-")[0] != other.name.partition(".partial-")[0]


def test_who_writes_a_file_next_removes_what_killed_processes_left_of_it(tmp_path):
    (tmp_path / ".out.partial-1-0a1b2c").touch()
    (tmp_path / ".out.partial-1-0a1b2d").mkdir()
    with Staging(tmp_path / "out") as path:
        path.write_text("new")
    assert names(tmp_path) == ["out"]

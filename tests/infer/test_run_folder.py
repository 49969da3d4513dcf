"""The folder OUT.partial: what is not of the run stays, and a lost part of the run is one line and exit code 3."""

import shutil
from contextlib import contextmanager

import pytest

from emsr_fast.cli import main
from emsr_fast.errors import VolumeError
from emsr_fast.infer.job import infer
from half_done import options_of, tree_of


def test_what_is_not_ours_in_the_work_folder_is_kept_and_named(half, capsys):
    folder, words = half
    partial = folder / "out.zarr.partial"
    (partial / "thesis.txt").write_text("years of work")
    assert main(words) == 0
    assert tree_of(folder / "out.zarr") == tree_of(folder / "whole" / "out.zarr")
    assert tree_of(partial) == {"thesis.txt": b"years of work"}
    assert f"note    {partial} is kept: it holds thesis.txt, which emsr-fast did not make" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 3
    said = capsys.readouterr().err
    assert "holds no run: it has no journal.json" in said
    assert "rename that folder, or choose another output" in said
    assert "rm -r" not in said
    assert tree_of(partial) == {"thesis.txt": b"years of work"}


@pytest.mark.parametrize("place", ["stopped", "failed", "written", "unfinished", "export"])
def test_so_is_what_lies_in_a_folder_of_the_run(slices, capsys, place):
    output, words = slices
    words[3] = str(output.with_name("a.tif"))
    assert main([*words, "--shard=1/2"]) == 0
    partial = output.with_name("a.tif.partial")
    (partial / place).mkdir(exist_ok=True)
    (partial / place / "thesis.txt").write_text("years of work")
    assert main(words) == 0
    assert output.with_name("a.tif").is_file()
    assert (partial / place / "thesis.txt").read_text() == "years of work"
    assert [entry.name for entry in partial.iterdir()] == [place]
    assert f"{partial} is kept: it holds {place}/thesis.txt, which emsr-fast" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["volume", "volume/0/c", "stopped", "failed", "export"])
def test_no_message_advises_to_delete_what_lies_in_a_folder_of_the_run(half, capsys, place):
    folder, words = half
    partial = folder / "out.zarr.partial"
    (partial / place).mkdir(exist_ok=True, parents=True)
    (partial / place / "thesis.txt").write_text("years of work")
    (partial / "journal.json").write_text("{}")
    assert main(words) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert f"also holds {place}/thesis.txt, which emsr-fast did not make: rename that folder" in line
    assert "rm -r" not in line


def test_nor_does_the_message_of_a_run_that_was_begun_with_something_else(half, capsys):
    folder, words = half
    notes = folder / "out.zarr.partial" / "volume" / "thesis.txt"
    notes.write_text("years of work")
    for kept in (True, False):
        assert main([*words, "--range=0:9000"]) == 3
        line = capsys.readouterr().err.splitlines()[-1]
        assert ("also holds volume/thesis.txt" in line, "rm -r" in line) == (kept, not kept)
        notes.unlink(missing_ok=True)


@pytest.mark.parametrize("name", ["lock", "finish.lock"])
def test_a_folder_in_the_place_of_a_lock_is_named(half, capsys, name):
    folder, words = half
    lock = folder / "out.zarr.partial" / name
    lock.unlink(missing_ok=True)
    lock.mkdir()
    assert main(words) == 3
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == f"error: {lock} is not a file, so emsr-fast did not make it: move it away, and repeat the command"
    lock.rmdir()
    assert main(words) == 0
    assert tree_of(folder / "out.zarr") == tree_of(folder / "whole" / "out.zarr")


def test_a_link_to_a_work_folder_elsewhere_is_removed_with_it(half):
    folder, words = half
    (folder / "out.zarr.partial").rename(folder / "elsewhere")
    (folder / "out.zarr.partial").symlink_to("elsewhere")
    assert main(words) == 0
    assert tree_of(folder / "out.zarr") == tree_of(folder / "whole" / "out.zarr")
    assert sorted(entry.name for entry in folder.iterdir()) == ["in.tif", "out.zarr", "whole"]


@pytest.mark.parametrize("journal", ["{}", "[]", '{"format": 4, "sha256": "", "run": {}}'])
@pytest.mark.parametrize("more", ["", "--overwrite", "--shard=1/2", "--finish", "--dry-run", "--dask=local:1"])
def test_a_folder_of_somebody_with_a_journal_in_it_is_left_alone(slices, capsys, journal, more):
    output, words = slices
    partial = output.with_name("a.ome.zarr.partial")
    partial.mkdir()
    (partial / "journal.json").write_text(journal)
    (partial / "thesis.txt").write_text("years of work")
    assert main([*words, *more.split()]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert "also holds thesis.txt, which emsr-fast did not make: rename that folder" in line
    assert "rm -r" not in line
    assert tree_of(partial) == {"journal.json": journal.encode(), "thesis.txt": b"years of work"}


def test_a_run_that_fails_at_once_leaves_what_somebody_put_into_its_folder(slices, monkeypatch):
    output, words = slices
    partial = output.with_name("a.ome.zarr.partial")

    @contextmanager
    def meanwhile(lr_pixels):
        (partial / "thesis.txt").write_text("years of work")
        raise VolumeError("as if the disk failed")
        yield

    with pytest.raises(VolumeError, match="as if"):
        infer(words[1], words[3], **options_of(words), progress=meanwhile)
    assert tree_of(partial) == {"thesis.txt": b"years of work"}


LOST = {
    "metadata of the group": lambda partial: cut_metadata(partial / "volume"),
    "metadata of a level": lambda partial: cut_metadata(partial / "volume" / "0"),
    "edited metadata": lambda partial: edit_metadata(partial / "volume" / "0"),
    "no metadata": lambda partial: next(metadata_of(partial / "volume" / "0")).unlink(),
    "the level": lambda partial: shutil.rmtree(partial / "volume" / "0"),
    "failed": lambda partial: shutil.rmtree(partial / "failed"),
    "failed is a file": lambda partial: (shutil.rmtree(partial / "failed"), (partial / "failed").write_text("x")),
    "bounded": lambda partial: shutil.rmtree(partial / "bounded"),
    "written": lambda partial: shutil.rmtree(partial / "written"),
    "unfinished": lambda partial: shutil.rmtree(partial / "unfinished"),
    "volume is a file": lambda partial: (shutil.rmtree(partial / "volume"), (partial / "volume").write_text("x")),
}


def metadata_of(folder):
    return (folder / name for name in ("zarr.json", ".zarray", ".zattrs") if (folder / name).exists())


def cut_metadata(folder):
    path = next(metadata_of(folder))
    path.write_bytes(path.read_bytes()[:40])


def edit_metadata(folder):
    path = next(metadata_of(folder))
    path.write_text(path.read_text().replace("192", "191"))


@pytest.mark.parametrize("what", LOST)
def test_a_work_folder_that_lost_a_part_is_one_line_that_names_the_folder_to_delete(half, capsys, what):
    folder, words = half
    partial = folder / "out.zarr.partial"
    LOST[what](partial)
    before = tree_of(partial)
    for more in ([], ["--shard=2/2"], ["--finish"]):
        assert main([*words, *more]) == 3
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith(f"error: {partial}/")
        assert "is gone; " in line or "is damaged, or was changed since it was written; " in line
        assert line.endswith(f"to start anew, delete the folder: rm -r {partial}")
        assert "fault of emsr-fast" not in line
        assert tree_of(partial).keys() - {"lock"} == before.keys() - {"lock"}


def test_a_mark_that_is_a_folder_is_one_line(half, capsys):
    folder, words = half
    (folder / "out.zarr.partial" / "failed" / "0-0-0.json").mkdir()
    assert main(words) == 3
    assert "0-0-0.json is damaged (" in capsys.readouterr().err

"""What is no file in the place of a shard of OUT.partial: a pipe, a folder, a link."""

import os
import shutil

import pytest

from emsr_fast.cli import main
from half_done import shards_of, tree_of
from pauses import command


def pipe(path, outside):
    path.unlink()
    os.mkfifo(path)


def link_to_nowhere(path, outside):
    path.unlink()
    path.symlink_to(outside / "nothing")


def link_out(path, outside):
    """To a copy of the shard."""
    shutil.move(path, outside / "copy")
    path.symlink_to(outside / "copy")


def link_to_folder(path, outside):
    path.unlink()
    path.symlink_to(outside, target_is_directory=True)


@pytest.mark.parametrize("level", ["0", "1"])
@pytest.mark.parametrize("put", [pipe, link_to_nowhere, link_out, link_to_folder])
def test_a_pipe_or_link_is_removed_and_the_shard_is_done_again(half, tmp_path_factory, put, level):
    folder, words = half
    outside = tmp_path_factory.mktemp("outside")
    (outside / "thesis.txt").write_text("years of work")
    volume = folder / "out.zarr.partial" / "volume"
    put(shards_of(volume, level)[0], outside)
    kept = tree_of(outside)
    if put is pipe:
        # in a process of its own, which is ended where it waits for ever
        assert command(words)[0] == 0
    else:
        assert main(words) == 0
    assert tree_of(folder / "out.zarr") == tree_of(folder / "whole" / "out.zarr")
    assert not any(path.is_symlink() for path in (folder / "out.zarr").rglob("*"))
    assert tree_of(outside) == kept


@pytest.mark.parametrize("level", ["0", "1"])
def test_a_folder_is_kept_and_named(half, capsys, level):
    folder, words = half
    place = shards_of(folder / "out.zarr.partial" / "volume", level)[0]
    place.unlink()
    place.mkdir()
    (place / "thesis.txt").write_text("years of work")
    assert main(words) == 3
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == f"error: {place} is a folder, which emsr-fast did not make: move it away, and repeat the command"
    assert tree_of(place) == {"thesis.txt": b"years of work"}
    place.rename(folder / "theirs")
    assert main(words) == 0
    assert tree_of(folder / "out.zarr") == tree_of(folder / "whole" / "out.zarr")

"""What another program or another run does at one moment of a run: real processes, stopped at that moment."""

import os

import numpy as np
import pytest
import tifffile

from pauses import Paused, command


@pytest.fixture
def small(tmp_path):
    """Two small slices; the output has a folder of its own."""
    (tmp_path / "out").mkdir()
    tifffile.imwrite(tmp_path / "in.tif", np.random.default_rng(0).integers(0, 255, (2, 16, 16), np.uint8))
    return tmp_path / "in.tif"


def arguments_of(small, output, *more):
    return ["infer", small, "-o", output, "--device", "cpu", "--input-voxel", "ignore", *more]


def put_folder(path):
    path.mkdir()
    (path / "thesis.txt").write_text("years of work")


def put_file(path):
    path.write_text("years of work")


def put_broken_link(path):
    path.symlink_to("thesis.txt")


# the first moment is before the last look at the name, the second after it, right before the name is taken
@pytest.mark.parametrize(("step", "number"), [("partial/journal.json", 1), ("renameat2", 2)])
@pytest.mark.parametrize("put", [put_folder, put_file, put_broken_link])
def test_what_comes_there_during_a_run_of_the_command_is_kept(small, tmp_path, step, number, put):
    output = tmp_path / "out" / "a.ome.zarr"
    with Paused(arguments_of(small, output), tmp_path, step, number) as paused:
        put(output)
        code, _, errors = paused.go_on()
    assert code == 3, errors
    assert f"during the work, whose result is kept in {output}.partial" in errors
    if put is put_broken_link:
        assert os.readlink(output) == "thesis.txt"
    else:
        found = output.read_text() if output.is_file() else (output / "thesis.txt").read_text()
        assert found == "years of work"
    assert sorted(entry.name for entry in output.parent.iterdir()) == ["a.ome.zarr", "a.ome.zarr.partial"]


@pytest.mark.parametrize("name", ["a.ome.zarr", "a.tif"])
def test_what_takes_the_place_of_the_old_output_during_a_run_is_kept(small, tmp_path, name):
    output, theirs = tmp_path / "out" / name, tmp_path / "theirs"
    assert command(arguments_of(small, output, "--slices", "0:1"))[0] == 0
    put_folder(theirs)
    exchanged = 2 if name.endswith("zarr") else 3  # the first is OUT.partial's; a TIFF is given its name in there, too
    with Paused(arguments_of(small, output, "--overwrite"), tmp_path, "renameat2", exchanged) as paused:
        output.rename(tmp_path / "old")
        theirs.rename(output)
        code, _, errors = paused.go_on()
    assert code == 3, errors
    assert "not overwritten; choose another name; it came there during the work, whose result is kept in" in errors
    assert (output / "thesis.txt").read_text() == "years of work"
    assert sorted(entry.name for entry in output.parent.iterdir()) == [name, f"{name}.partial"]


def test_a_second_run_into_the_same_output_is_refused_and_told_who_has_it(small, tmp_path):
    output = tmp_path / "out" / "a.ome.zarr"
    arguments = arguments_of(small, output)
    with Paused(arguments, tmp_path, "a.ome.zarr.partial/journal.json") as paused:
        code, _, errors = command(arguments)
        assert code == 3, errors
        assert f"another process is writing {output} (process {paused.process.pid} on " in errors
        code, _, errors = paused.go_on()
    assert code == 0, errors
    assert [entry.name for entry in output.parent.iterdir()] == [output.name]


def test_a_second_run_that_comes_as_the_first_one_ends_is_told_so(small, tmp_path):
    output = tmp_path / "out" / "a.ome.zarr"
    arguments = arguments_of(small, output)
    with Paused(arguments, tmp_path, f"os.remove {output}.partial/journal.json") as first:
        # the volume is published, the folder nearly gone
        code, _, errors = command(arguments)
        assert code in (0, 3), errors
        assert first.go_on()[0] == 0
    assert command(arguments)[0] == 3
    assert [entry.name for entry in output.parent.iterdir()] == [output.name]

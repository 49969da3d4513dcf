"""Outputs: refused before any work where they cannot go, and under their final name only when complete."""

import errno
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from emsr_fast.errors import UsageError, VolumeError
from emsr_fast.io.destination import check_destination, volume_error
from emsr_fast.io.registry import create_target, open_source
from emsr_fast.io.volume import TargetSpec
from emsr_fast.shield import shielded_from_signals

SPEC = TargetSpec((1, 6, 6), np.dtype("u1"), scale=3)
OUTPUTS = ["a.tif", "a.ome.zarr", "a.h5", "a.mrc"]
WHOLE = slice(0, 6)


def write(path, value, overwrite=False):
    with create_target(path, SPEC, overwrite=overwrite) as target:
        target.write(0, WHOLE, WHOLE, np.full((6, 6), value, np.uint8))
        target.commit()


def read(path):
    with open_source(path) as source:
        return source.read(0, WHOLE, WHOLE)


@pytest.mark.parametrize("name", OUTPUTS)
def test_nothing_has_the_final_name_before_the_end(tmp_path, name):
    with create_target(tmp_path / name, SPEC) as target:
        target.write(0, WHOLE, WHOLE, np.ones((6, 6), np.uint8))
        (staged,) = tmp_path.iterdir()
        assert staged.name.startswith(f".{name}.partial-{os.getpid()}")
        target.commit()
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("stop", [None, RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_unfinished_output_leaves_nothing(tmp_path, name, stop):
    try:
        with create_target(tmp_path / name, SPEC) as target:
            target.write(0, WHOLE, WHOLE, np.ones((6, 6), np.uint8))
            if stop is not None:
                raise stop
    except (RuntimeError, KeyboardInterrupt, SystemExit):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_old_output_survives_until_the_new_one_is_complete(tmp_path, name):
    write(tmp_path / name, 1)
    with pytest.raises(VolumeError, match=r"exists; .* `overwrite=True`"):
        create_target(tmp_path / name, SPEC)
    with pytest.raises(RuntimeError), create_target(tmp_path / name, SPEC, overwrite=True):
        raise RuntimeError
    assert (read(tmp_path / name) == 1).all()
    write(tmp_path / name, 2, overwrite=True)
    assert (read(tmp_path / name) == 2).all()
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_name_taken_meanwhile_is_not_replaced(tmp_path, name):
    with create_target(tmp_path / name, SPEC) as target:
        (tmp_path / name).mkdir()
        with pytest.raises(VolumeError, match="exists"):
            target.commit()
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", OUTPUTS)
def test_other_data_is_never_overwritten(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.txt").write_text("years of work")
    with pytest.raises(VolumeError, match=r"a folder that is not in (TIFF|OME-Zarr|HDF5|MRC) format: not over"):
        check_destination(tmp_path / name, overwrite=True)
    assert (tmp_path / name / "thesis.txt").exists()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / name).write_text("a text")
    with pytest.raises(VolumeError, match="is a file that is not in"):
        check_destination(tmp_path / "b" / name, overwrite=True)


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_empty_file_made_by_mktemp_may_be_replaced(tmp_path, name):
    (tmp_path / name).touch()
    write(tmp_path / name, 3, overwrite=True)
    assert (read(tmp_path / name) == 3).all()
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_a_link_is_followed_not_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    write(tmp_path / "real" / "a.tif", 1)
    (tmp_path / "a.tif").symlink_to(tmp_path / "real" / "a.tif")
    write(tmp_path / "a.tif", 2, overwrite=True)
    assert (tmp_path / "a.tif").is_symlink()
    assert (read(tmp_path / "real" / "a.tif") == 2).all()


@pytest.mark.parametrize(
    ("source", "output", "message"),
    [
        ("in.tif", "in.tif", "is the input itself"),
        ("in.tif", "link.tif", "is the input itself"),
        ("slices", "slices/out.tif", "lies inside the input"),
        ("out.zarr/0", "out.zarr", "contains the input"),
    ],
)
def test_input_and_output_must_not_overlap(tmp_path, source, output, message):
    (tmp_path / "in.tif").write_bytes(b"II*\0")
    (tmp_path / "link.tif").symlink_to("in.tif")
    (tmp_path / "slices").mkdir()
    (tmp_path / "out.zarr" / "0").mkdir(parents=True)
    with pytest.raises(UsageError, match=message):
        check_destination(tmp_path / output, overwrite=True, source=tmp_path / source)


def test_a_hard_link_to_the_input_is_the_input(tmp_path):
    (tmp_path / "in.tif").write_bytes(b"II*\0")
    (tmp_path / "other.tif").hardlink_to(tmp_path / "in.tif")
    with pytest.raises(UsageError, match="is the input itself"):
        check_destination(tmp_path / "other.tif", overwrite=True, source=tmp_path / "in.tif")


def test_folders_that_cannot_hold_the_output_are_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(VolumeError, match="does not exist; create it first: mkdir -p"):
        check_destination(tmp_path / "no" / "where.tif", overwrite=False)
    with pytest.raises(VolumeError, match="is a file, not a folder"):
        check_destination(tmp_path / "file" / "a.tif", overwrite=False)
    if os.geteuid() != 0:  # root may write everywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(VolumeError, match="is not writable"):
            check_destination(tmp_path / "locked" / "a.tif", overwrite=False)


@pytest.mark.parametrize("name", ["a", "a.png", "a.zar", ".zarr", "", "a.tif.gz"])
def test_an_unknown_suffix_lists_the_known_ones(name):
    with pytest.raises(UsageError, match=r"use one of \.ome\.zarr, \.zarr, \.ome\.tif"):
        check_destination(f"/tmp/{name}", overwrite=False)


def test_a_tiff_larger_than_the_free_disk_is_refused_at_once(tmp_path):
    huge = TargetSpec((10**6, 30000, 30000), np.dtype("u1"), scale=3)
    with pytest.raises(VolumeError, match=r"needs 900000512\.0 MB and its disk has"):
        create_target(tmp_path / "a.tif", huge)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "quota is used up"),
        (errno.EFBIG, "larger than this system allows"),
        (errno.EROFS, "Read-only file system"),
    ],
)
def test_failures_of_the_system_are_said_in_words(tmp_path, number, message):
    assert message in str(volume_error(OSError(number, os.strerror(number)), tmp_path / "a.tif"))


_FILL_A_DISK = """
import sys, numpy as np, pathlib
from emsr_fast.errors import VolumeError
from emsr_fast.io.registry import create_target
from emsr_fast.io.volume import TargetSpec
folder = pathlib.Path(sys.argv[1])
noise = np.random.default_rng(0).integers(-100, 100, (600, 600)).astype(np.int8)
try:
    with create_target(folder / sys.argv[2], TargetSpec((2, 600, 600), noise.dtype, 3, block=600)) as target:
        (folder / "other").write_bytes(bytes(700_000))
        for z in range(2):
            target.write(z, slice(0, 600), slice(0, 600), noise)
        target.commit()
except VolumeError as error:
    print(error)
print(sorted(entry.name for entry in folder.iterdir()))
"""


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_disk_that_fills_up_while_writing_leaves_one_clear_error_and_nothing_else(tmp_path, name):
    mount = f'mount -t tmpfs -o size=1m none "{tmp_path}" && exec "$0" -c "$1" "{tmp_path}" {name}'
    result = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mount, sys.executable, _FILL_A_DISK], capture_output=True, text=True
    )
    if result.returncode and ("unshare" in result.stderr or "mount" in result.stderr):
        pytest.skip(f"no private mounts here: {result.stderr.strip()}")
    message, left = result.stdout.splitlines()
    assert "cannot be written: the disk is full" in message
    assert left == "['other']"
    assert result.stderr == ""


def test_signals_wait_for_the_end_of_a_shielded_block():
    steps = []

    def work():
        with shielded_from_signals():
            signal.raise_signal(signal.SIGINT)
            steps.append("finished")
        steps.append("not reached")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == ["finished"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

"""ND2 files, written by hand after the format's public description; nd2 itself reads the same from them."""

import sys

import numpy as np
import pytest

from emsr_fast.cli import main
from emsr_fast.errors import VolumeError
from emsr_fast.io.registry import open_source
from nd2_files import write_nd2
from reading import rise_in_memory

nd2 = pytest.importorskip("nd2")
STACK = (np.arange(5 * 30 * 41 * 2).reshape(5, 30, 41, 2) * 13 % 60000).astype("u2")


def check(source, stack):
    assert (source.shape, source.dtype) == (stack.shape, stack.dtype)
    for z, plane in enumerate(stack):
        np.testing.assert_array_equal(source.read(z, slice(None), slice(None)), plane)
    np.testing.assert_array_equal(source.read(0, slice(3, 20), slice(5, 33)), stack[0, 3:20, 5:33])


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("padding", [0, 2])
def test_a_stack_of_each_type_with_rows_padded_or_not(tmp_path, dtype, padding):
    stack = (STACK[..., :1] % 250).astype(dtype)
    path = write_nd2(tmp_path / "a.nd2", stack, padding=padding)
    with open_source(path) as source:
        assert source.info.format == "ND2"
        assert source.info.voxel_size_nm == (30, 4, 4)
        check(source, stack[..., 0])
    if not padding:
        np.testing.assert_array_equal(nd2.imread(path), stack[..., 0])


def test_a_channel_is_chosen(tmp_path):
    path = write_nd2(tmp_path / "a.nd2", STACK)
    with pytest.raises(VolumeError, match="2 channels"):
        open_source(path)
    for channel in range(2):
        with open_source(path, channel=channel) as source:
            check(source, STACK[..., channel])
            np.testing.assert_array_equal(nd2.imread(path)[:, channel], STACK[..., channel])


def test_one_image_and_an_unknown_size(tmp_path):
    with open_source(write_nd2(tmp_path / "a.nd2", STACK[:1, ..., :1], calibrated=False)) as source:
        assert source.info.voxel_size_nm == (None, None, None)
        check(source, STACK[:1, ..., 0])


def test_metadata_that_the_library_cannot_read_leave_the_size_unknown(tmp_path):
    path = write_nd2(tmp_path / "a.nd2", STACK[..., :1])
    path.write_bytes(path.read_bytes().replace("bCalib".encode("utf-16-le"), "bXxxxx".encode("utf-16-le")))
    with open_source(path) as source:
        assert source.info.voxel_size_nm == (None, None, None)
        assert source.info.notes[0].startswith("its calibration cannot be read (KeyError")
        check(source, STACK[..., 0])


def test_a_frame_that_is_not_there_fails_alone(tmp_path):
    with open_source(write_nd2(tmp_path / "a.nd2", STACK[..., :1], missing=3)) as source:
        assert list(source.info.damaged) == [3]
        np.testing.assert_array_equal(source.read(4, slice(None), slice(None)), STACK[4, ..., 0])
        with pytest.raises(VolumeError, match="has no frame 3"):
            source.read(3, slice(None), slice(None))


def test_what_is_not_read_is_refused_by_name(tmp_path):
    with pytest.raises(VolumeError, match="leave `key=1` out"):
        open_source(write_nd2(tmp_path / "a.nd2", STACK), "1")
    with pytest.raises(VolumeError, match="compressed \\(lossless\\)"):
        open_source(write_nd2(tmp_path / "a.nd2", STACK, more={"eCompression": 0}))
    colour = np.ones((1, 8, 8, 3), "u1")
    with pytest.raises(VolumeError, match="colour image"):
        open_source(write_nd2(tmp_path / "a.nd2", colour, components=3))


def test_a_file_cut_anywhere_is_refused_in_one_line(tmp_path, capsys):
    whole = write_nd2(tmp_path / "a.nd2", STACK[..., :1]).read_bytes()
    for length in range(20, len(whole), len(whole) // 17):
        (tmp_path / "a.nd2").write_bytes(whole[:length])
        assert main(["inspect", str(tmp_path / "a.nd2")]) == 3
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "a.nd2" in said


def test_without_nd2_the_extra_is_named(tmp_path, capsys, monkeypatch):
    path = write_nd2(tmp_path / "a.nd2", STACK)
    monkeypatch.setitem(sys.modules, "nd2", None)
    assert main(["inspect", str(path)]) == 3
    assert "needs the extra emsr-fast[formats]: nd2 is not installed" in capsys.readouterr().err


def test_a_stack_is_read_a_slice_at_a_time(tmp_path):
    path = write_nd2(tmp_path / "a.nd2", np.ones((50, 1024, 1024, 1), "u1"))
    assert rise_in_memory(path) < 21 * 2**20

"""Jeiss .dat files of FIB-SEM microscopes: every version, both types, channels, folders of slices."""

import numpy as np
import pytest

from emsr_fast.cli import main
from emsr_fast.errors import UsageError, VolumeError
from emsr_fast.io.registry import open_source
from jeiss_files import write_jeiss
from reading import read_apart, rise_in_memory

PIXELS = (np.arange(30 * 40 * 2).reshape(30, 40, 2) * 13 % 30000 - 9000).astype("i2")


@pytest.mark.parametrize("version", range(1, 10))
def test_every_version_has_its_pixel_size_and_its_channels(tmp_path, version):
    path = write_jeiss(tmp_path / "a.dat", PIXELS, version=version, pixel_nm=4.2)
    with pytest.raises(VolumeError, match=r"2 channels; name one with `channel`, 0 to 1"):
        open_source(path)
    for channel in range(2):
        with open_source(path, channel=channel) as source:
            assert source.info.format == f"Jeiss dat {version}"
            assert (source.shape, source.dtype) == ((1, 30, 40), np.int16)
            assert source.info.voxel_size_nm == (None, 4.2, 4.2)
            assert source.info.notes == ("channels, by detector: 0 InLens, 1 ESB",)
            assert source.info.instrument == ("Jeiss 1" if version >= 5 else None)
            np.testing.assert_array_equal(source.read(0, slice(None), slice(None)), PIXELS[..., channel])
            np.testing.assert_array_equal(source.read(0, slice(4, 20), slice(7, 31)), PIXELS[4:20, 7:31, channel])


def test_one_channel_of_eight_bits(tmp_path):
    pixels = (PIXELS[..., :1] % 256).astype("u1")
    with open_source(write_jeiss(tmp_path / "a.dat", pixels, pixel_nm=0)) as source:
        assert source.dtype == np.uint8
        assert source.info.voxel_size_nm == (None, None, None)
        np.testing.assert_array_equal(source.read(0, slice(None), slice(None)), pixels[..., 0])


def test_a_newer_version_is_noted(tmp_path):
    with open_source(write_jeiss(tmp_path / "a.dat", PIXELS, version=11), channel=0) as source:
        assert "its version is 11: read as version 9" in source.info.notes[0]


@pytest.mark.parametrize("channel", [0, 1])
def test_a_folder_is_a_stack_of_one_channel(tmp_path, channel):
    for z in range(11):
        write_jeiss(tmp_path / f"Merlin_{z}.dat", PIXELS + np.int16(z))
    (tmp_path / "notes.dat").write_text("no image")
    with pytest.raises(VolumeError, match="2 channels"):
        open_source(tmp_path)
    with open_source(tmp_path, channel=channel) as source:
        assert source.shape == (11, 30, 40)
        assert source.info.voxel_size_nm == (None, 8, 8)
        np.testing.assert_array_equal(source.read(10, slice(None), slice(None)), PIXELS[..., channel] + 10)
        assert any("1 other file skipped: notes.dat" in note for note in source.info.notes)


def test_a_channel_that_is_not_there_and_a_key_are_refused(tmp_path):
    path = write_jeiss(tmp_path / "a.dat", PIXELS)
    with pytest.raises(UsageError, match="channel 2"):
        open_source(path, channel=2)
    with pytest.raises(VolumeError, match="leave `key=1` out"):
        open_source(path, "1", channel=0)


@pytest.mark.parametrize(("at", "name"), [(4, "version 0"), (32, "0 channels"), (103, "0 x 30")])
def test_a_header_without_pixels_is_damaged(tmp_path, at, name):
    path = write_jeiss(tmp_path / "a.dat", PIXELS)
    content = bytearray(path.read_bytes())
    content[at : at + 2] = bytes(2) if at != 103 else content[at : at + 2]
    content[at] = 0
    path.write_bytes(content)
    with pytest.raises(VolumeError, match=name):
        open_source(path, channel=0)


def test_a_size_that_no_file_has_is_refused_at_once(tmp_path):
    path = write_jeiss(tmp_path / "a.dat", PIXELS[..., :1])
    content = bytearray(path.read_bytes())
    content[100:108] = bytes([0, 0, 0, 40, 127, 255, 255, 255])  # columns, rows
    path.write_bytes(content)
    said, _ = read_apart(path)
    assert said.startswith("refused")
    assert "is truncated" in said


@pytest.mark.parametrize("length", [8, 500, 1023, 1024, 3000])
def test_a_cut_file_is_refused_in_one_line(tmp_path, capsys, length):
    path = write_jeiss(tmp_path / "a.dat", PIXELS)
    path.write_bytes(path.read_bytes()[:length])
    assert main(["inspect", str(path), "--channel", "0"]) == 3
    said = capsys.readouterr().err
    assert "is truncated" in said
    assert said.count("\n") == 1


def test_a_large_slice_is_read_without_its_other_channel(tmp_path):
    path = write_jeiss(tmp_path / "a.dat", np.ones((5000, 5000, 1), "u1"))
    assert rise_in_memory(path) < 5000**2 + 20 * 2**20

"""Pixels without a header, read as the user describes them."""

import json
import re

import numpy as np
import pytest

from emsr_fast.cli import main
from emsr_fast.errors import UsageError, VolumeError
from emsr_fast.io.readers.parts.file_array import FileArray
from emsr_fast.io.registry import open_source
from reading import rise_in_memory

STACK = (np.arange(3 * 40 * 56).reshape(3, 40, 56) * 7 % 2**15).astype("u2")


def raw(path, pixels=STACK, before=b""):
    path.write_bytes(before + pixels.tobytes())
    return path


@pytest.mark.parametrize(
    ("dtype", "named"),
    [
        ("<u2", "uint16"),
        ("<u2", "uint16le"),
        (">u2", "uint16be"),
        (">u2", ">u2"),
        ("<i2", "<i2"),
        ("u1", "uint8"),
        ("i1", "i1"),
        (">f4", "float32be"),
        ("<u4", "uint32"),
        ("<f8", "float64"),
    ],
)
def test_every_type_and_byte_order_is_read(tmp_path, dtype, named):
    pixels = (STACK % 127).astype(dtype)
    with open_source(raw(tmp_path / "a", pixels), f"raw=3x40x56:{named}") as source:
        assert source.shape == STACK.shape
        assert source.info.voxel_size_nm == (None, None, None)
        for z, plane in enumerate(pixels):
            np.testing.assert_array_equal(source.read(z, slice(None), slice(None)), plane)
        np.testing.assert_array_equal(source.read(1, slice(3, 9), slice(5, 50)), pixels[1, 3:9, 5:50])


def test_an_offset_a_voxel_size_and_the_place_behind_the_name(tmp_path):
    path = raw(tmp_path / "a.raw", before=bytes(512))
    with open_source(f"{path}:/raw=3x40x56:uint16@512:0.03x0.008x0.004um") as source:
        assert source.info.voxel_size_nm == (30, 8, 4)
        assert source.info.format == "raw binary, little-endian, from byte 512"
        np.testing.assert_array_equal(source.read(2, slice(None), slice(None)), STACK[2])


@pytest.mark.parametrize(
    "text", ["3X40X56:UINT16", "3x40x56:uint16:30X8X4nm", "3x40x56:uint16:0.03x0.008x0.004\u00b5m"]
)
def test_capitals_and_the_sign_of_micro_are_read(tmp_path, text):
    with open_source(raw(tmp_path / "a.raw"), f"raw={text}") as source:
        assert source.shape == STACK.shape
        assert source.info.voxel_size_nm == ((30, 8, 4) if text.endswith("m") else (None, None, None))


def test_one_image_and_axes_in_another_order(tmp_path):
    with open_source(raw(tmp_path / "a.raw", STACK[0]), "raw=40x56:uint16") as source:
        np.testing.assert_array_equal(source.read(0, slice(None), slice(None)), STACK[0])
    turned = STACK.transpose(1, 2, 0)
    path = raw(tmp_path / "b.raw", np.ascontiguousarray(turned))
    with open_source(path, "raw=40x56x3:uint16:4x4x30nm", axes="YXZ") as source:
        assert source.info.voxel_size_nm == (30, 4, 4)
        np.testing.assert_array_equal(source.read(1, slice(2, 30), slice(7, 50)), STACK[1, 2:30, 7:50])
    with open_source(path, "raw=40x56x3:uint16", axes="YXC", channel=2) as source:
        np.testing.assert_array_equal(source.read(0, slice(None), slice(None)), STACK[2])


def test_a_channel_of_four_axes(tmp_path):
    pixels = np.stack([STACK, STACK + 1])
    path = raw(tmp_path / "a.raw", pixels)
    with open_source(path, "raw=2x3x40x56:uint16", channel=1) as source:
        np.testing.assert_array_equal(source.read(2, slice(None), slice(9, 20)), pixels[1, 2, :, 9:20])
    with pytest.raises(VolumeError, match="2 channels"):
        open_source(path, "raw=2x3x40x56:uint16")


@pytest.mark.parametrize(
    ("described", "said"),
    [
        ("3x40x57:uint16", "has 13,440 bytes, and '3x40x57:uint16' needs 13,680, 240 bytes more; check sides and type"),
        ("3x40x56:uint8", "needs 6,720, 6,720 bytes fewer; check sides and type, or leave out a header of that size"),
        ("3x40x55:uint16@200", "needs 13,400 from byte 200, 40 bytes fewer"),
    ],
)
def test_a_file_of_another_size_is_refused_with_both_sizes(tmp_path, capsys, described, said):
    path = raw(tmp_path / "a.raw")
    assert main(["inspect", str(path), "--raw", described]) == 3
    shown = capsys.readouterr().err
    assert re.search(re.escape(said), shown), shown
    assert shown.count("\n") == 1


@pytest.mark.parametrize(
    "described",
    ["", "3x40", "3x40x56", "3x40x56:uint12", "3x0x56:u2", "3x40x56:complex64", ">u2:3x40x56", "3x40x56:>u2le",
     "3x40x56:u2:30nm", "3x40x56:u2:30x8x8furlong", "3x40x56:u2:30x8x0nm", "1x" * 9 + "1:u1", "9" * 5000 + "x1x1:u1",
     "3x40x56:u2:1.2.3x8x8nm", "3x40x56:u2@", "3x40x56:\u0663u2"],
)  # fmt: skip
def test_another_form_is_a_usage_error_of_one_line(tmp_path, capsys, described):
    path = raw(tmp_path / "a.raw")
    assert main(["inspect", str(path), "--raw", described]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: --raw")
    assert shown.count("\n") == 1
    assert len(shown) < 500
    with pytest.raises(UsageError):
        open_source(path, f"raw={described}")


def test_key_and_raw_together_are_refused(tmp_path, capsys):
    assert main(["inspect", str(raw(tmp_path / "a.raw")), "--raw", "3x40x56:u2", "--key", "a"]) == 2
    assert "--key and --raw are given together" in capsys.readouterr().err


def test_a_file_of_no_known_format_is_told_of_raw(tmp_path, capsys):
    path = raw(tmp_path / "a.bin")
    assert main(["inspect", str(path)]) == 3
    assert "describe raw pixels with --raw" in capsys.readouterr().err
    assert main(["evaluate", str(path), "-o", str(tmp_path / "report")]) == 3
    assert "--raw" not in capsys.readouterr().err


def test_infer_reads_raw_pixels_and_notes_how(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (1, 40, 56)).astype("u1")
    path, out = raw(tmp_path / "a.raw", pixels), tmp_path / "out.h5"
    command = ["infer", str(path), "--raw", "1x40x56:u1:30x30x30nm", "-o", str(out), "--model", "emsr-x3-small"]
    assert main([*command, "--input-voxel", "ignore"]) == 0
    with open_source(out) as source:
        assert source.shape == (1, 120, 168)
        assert source.info.voxel_size_nm == (30, 10, 10)


def test_json_of_a_raw_file_has_its_description(tmp_path, capsys):
    assert main(["inspect", str(raw(tmp_path / "a.raw")), "--raw", "3x40x56:uint16", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["key"] == "raw=3x40x56:uint16"


@pytest.mark.parametrize("most", [0, 2**20])
def test_short_rows_are_read_whole_with_the_same_pixels(tmp_path, monkeypatch, most):
    monkeypatch.setattr("emsr_fast.io.readers.parts.file_array._SHORT_ROW", most)
    array = FileArray(raw(tmp_path / "a"), range(0, STACK.nbytes, STACK[0].nbytes), STACK.dtype, STACK.shape)
    np.testing.assert_array_equal(array[1:3, 5:9, 7:30], STACK[1:3, 5:9, 7:30])
    np.testing.assert_array_equal(array[:, :, 3], STACK[:, :, 3])
    array.close()


def test_a_stack_is_read_a_slice_at_a_time(tmp_path):
    path = tmp_path / "a.raw"
    with path.open("wb") as file:
        for z in range(50):
            file.write(np.full(2**20, z, "u1"))
    assert rise_in_memory(path, "raw=50x1024x1024:u1") < 2**20 + 20 * 2**20

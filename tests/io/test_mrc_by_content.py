"""MRC files as other programs leave them: without the mark, with a wrong machine stamp, compressed."""

import bz2
import gzip
import lzma
import re
import struct

import mrcfile
import numpy as np
import pytest

from emsr_fast.cli import main
from emsr_fast.errors import VolumeError
from emsr_fast.io.registry import open_source

EVERYTHING = slice(None)
PIXELS = np.arange(3 * 8 * 9, dtype=np.int16).reshape(3, 8, 9)
DTYPES = {0: "i1", 1: "i2", 2: "f4"}


def written(path, order="<", stamp=b"\x44\x44", mark=b"MAP ", mode=1, axes=(1, 2, 3), extended=b""):
    """Write an MRC by hand, 5 x 4 x 4 nm."""
    z, y, x = PIXELS.shape
    head = bytearray(1024)
    struct.pack_into(f"{order}4i", head, 0, x, y, z, mode)
    struct.pack_into(f"{order}3i", head, 28, x, y, z)
    struct.pack_into(f"{order}6f", head, 40, x * 40.0, y * 40.0, z * 50.0, 90, 90, 90)
    struct.pack_into(f"{order}3i", head, 64, *axes)
    struct.pack_into(f"{order}i", head, 92, len(extended))
    head[208:212], head[212:216] = mark, stamp.ljust(4, b"\0")
    path.write_bytes(bytes(head) + extended + PIXELS.astype(f"{order}{DTYPES[mode]}").tobytes())
    return path


def notes_of(path):
    """Check pixels and voxel size of what ``written`` wrote; return the notes."""
    with open_source(path) as source:
        assert source.info.voxel_size_nm == pytest.approx((5, 4, 4))
        for z, expected in enumerate(PIXELS):
            np.testing.assert_array_equal(source.read(z, EVERYTHING, EVERYTHING), expected)
        return source.info.notes


@pytest.mark.parametrize("name", ["a.mrc", "a.REC", "a.st", "a.ali", "a.map", "a.mrcs"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_file_without_the_mark_is_read_if_its_header_fits_it(tmp_path, name, order):
    notes = notes_of(written(tmp_path / name, order, b"\0\0", b"\0\0\0\0"))
    assert any(note.startswith("its header lacks the mark MAP") for note in notes)


def test_a_file_without_the_mark_whose_header_does_not_fit_is_refused(tmp_path):
    path = written(tmp_path / "a.mrc", mark=b"\0\0\0\0")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(VolumeError, match="no mark MAP"):
        open_source(path)


def test_a_file_of_another_name_without_the_mark_is_not_taken_for_mrc(tmp_path):
    with pytest.raises(VolumeError, match="not an image this version reads"):
        open_source(written(tmp_path / "a.dat", mark=b"\0\0\0\0"))


@pytest.mark.parametrize("stamp", [b"\0\0", b"\x44\x44", b"\x11\x11", b"\x44\x11", b"\xff\xff"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize("axes", [(1, 2, 3), (0, 0, 0)])
def test_the_byte_order_is_the_one_in_which_the_header_makes_sense(tmp_path, order, stamp, mode, axes):
    notes = notes_of(written(tmp_path / "a.mrc", order, stamp, mode=mode, axes=axes))
    right = {"<": b"\x44\x44", ">": b"\x11\x11"}[order]
    named = {"<": "little-endian", ">": "big-endian"}[order]
    assert any(f"read as {named}" in note for note in notes) == (stamp != right)


@pytest.mark.parametrize("pack", [gzip, bz2, lzma])
@pytest.mark.parametrize("mark", [b"MAP ", b"\0\0\0\0"])
def test_a_compressed_file_is_read_in_place(tmp_path, pack, mark):
    plain = written(tmp_path / "a.map", mark=mark)
    packed = tmp_path / f"b.map.{'gz' if pack is gzip else 'bz2' if pack is bz2 else 'xz'}"
    packed.write_bytes(pack.compress(plain.read_bytes()))
    assert notes_of(packed) == notes_of(plain)


def test_a_compressed_file_that_is_cut_says_so(tmp_path):
    content = written(tmp_path / "a.mrc").read_bytes()
    short = tmp_path / "short.mrc.gz"
    short.write_bytes(gzip.compress(content[:-100]))
    with pytest.raises(VolumeError, match=re.escape("asks for 1456 bytes once unpacked, it has 1356")):
        open_source(short)
    cut = tmp_path / "cut.mrc.gz"
    cut.write_bytes(gzip.compress(content)[:-30])
    with pytest.raises(VolumeError, match="cannot be unpacked: Compressed file ended"):
        open_source(cut)


def test_a_compressed_file_that_claims_too_much_is_to_be_unpacked_first(tmp_path):
    content = bytearray(written(tmp_path / "a.mrc").read_bytes())
    struct.pack_into("<3i", content, 0, 2000, 2000, 2000)
    path = tmp_path / "a.mrc.gz"
    path.write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(VolumeError, match=re.escape(f"unpack it first: gunzip -k {path}")):
        open_source(path)
    # by a header more than the most: the figures differ
    struct.pack_into("<3i", content, 0, 32768, 32768, 1)
    path.write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(VolumeError, match=r"holds 2,147,484,\d+ bytes once unpacked, more than the 2,147,483,648 that"):
        open_source(path)


@pytest.mark.parametrize(
    ("name", "begin", "advice"),
    [
        ("a.tif.gz", gzip.compress(b"II*\0" + bytes(1200), mtime=0), "gunzip -k"),
        ("a.tif.bz2", bz2.compress(b"II*\0" + bytes(1200)), "bunzip2 -k"),
        ("a.nii.gz", gzip.compress(bytes(1200), mtime=0), "gunzip -k"),
        ("a.mrc.zst", b"\x28\xb5\x2f\xfd" + bytes(100), "unzstd"),
        ("a.zarr.zip", b"PK\x03\x04" + bytes(100), "unzip"),
    ],
)
def test_other_compressed_files_name_the_command_that_unpacks_them(tmp_path, name, begin, advice):
    path = tmp_path / name
    path.write_bytes(begin)
    with pytest.raises(VolumeError, match=re.escape(f"unpack it first: {advice} {path}")):
        open_source(path)


def test_an_mrc_output_keeps_the_extended_header_of_a_compressed_input(tmp_path):
    plain = written(tmp_path / "a.mrc", extended=b"what a microscope says".ljust(32))
    packed = tmp_path / "a.mrc.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    out = tmp_path / "b.mrc"
    assert main(["infer", str(packed), "-o", str(out), "--input-voxel", "ignore"]) == 0
    with mrcfile.open(out) as file:
        assert file.extended_header.tobytes().startswith(b"what a microscope says")

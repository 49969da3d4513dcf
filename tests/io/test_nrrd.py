"""NRRD files, written by pynrrd and, independently of it, by ITK and by hand."""

import sys

import numpy as np
import pytest

from emsr_fast.cli import main
from emsr_fast.errors import VolumeError
from emsr_fast.io.registry import open_source
from reading import rise_in_memory

nrrd = pytest.importorskip("nrrd")
STACK = (np.arange(5 * 30 * 40).reshape(5, 30, 40) * 11 % 30000).astype("u2")
SIZED = {"spacings": [4, 5, 30], "units": ["nm", "nm", "nm"]}


def written(path, stack=STACK, **header):
    """Write ``stack``, slowest axis first, with the fields of ``header`` as pynrrd spells them."""
    nrrd.write(str(path), stack, {name.replace("_", " "): value for name, value in header.items()}, index_order="C")
    return path


def by_hand(path, fields, pixels=STACK):
    path.write_bytes(b"NRRD0005\n" + "".join(f"{line}\n" for line in fields).encode() + b"\n" + pixels.tobytes())
    return path


def check(source, stack=STACK):
    assert (source.shape, source.dtype) == (stack.shape, stack.dtype.newbyteorder("="))
    for z, plane in enumerate(stack):
        np.testing.assert_array_equal(source.read(z, slice(None), slice(None)), plane)
    np.testing.assert_array_equal(source.read(1, slice(3, 20), slice(5, 33)), stack[1, 3:20, 5:33])


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("name", ["a.nrrd", "a.nhdr"])
def test_each_encoding_and_byte_order_in_one_file_or_two(tmp_path, encoding, order, name):
    stack = STACK.astype(STACK.dtype.newbyteorder("<" if order == "little" else ">"))
    with open_source(written(tmp_path / name, stack, encoding=encoding, endian=order, **SIZED)) as source:
        assert source.info.voxel_size_nm == (30, 5, 4)
        assert source.info.voxel_size_from == "NRRD spacings"
        check(source, stack)


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "f4"])
@pytest.mark.parametrize("packed", [False, True])
def test_what_itk_wrote_is_read_and_its_size_without_a_unit_is_unknown(tmp_path, dtype, packed):
    sitk = pytest.importorskip("SimpleITK")
    stack = (STACK % 120).astype(dtype)
    image = sitk.GetImageFromArray(stack)
    image.SetSpacing((0.004, 0.005, 0.03))
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"), useCompression=packed)
    with open_source(tmp_path / "a.nrrd") as source:
        check(source, stack)
        assert source.info.voxel_size_nm == (None, None, None)
        assert any("no unit" in note for note in source.info.notes)


FIELDS = ["type: unsigned short", "dimension: 3", "sizes: 40 30 5", "encoding: raw", "endian: little"]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["space dimension: 3", 'space units: "um" "um" "um"',
          "space directions: (0.0024,0.0032,0) (-0.004,0.003,0) (0,0,0.03)"], (30, 5, 4)),
        (["spacings: 4 5 30", 'units: "nm" "nm" "s"'], (None, 5, 4)),
        (["spacings: 4 5 30"], (None, None, None)),
        (["spacings: 4 5 nan", 'units: "nm" "nm" "nm"'], (None, 5, 4)),
        (["spacings: -4 5 30", 'units: "nm" "nm" "nm"'], (30, 5, 4)),
        ([], (None, None, None)),
    ],
)  # fmt: skip
def test_each_way_to_state_the_voxel_size(tmp_path, more, expected):
    with open_source(by_hand(tmp_path / "a.nrrd", [*FIELDS, *more])) as source:
        check(source)
        assert source.info.voxel_size_nm == pytest.approx(expected)


def test_lines_and_bytes_before_the_pixels_are_skipped(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"one\ntwo\n" + bytes(7) + STACK.tobytes())
    for more in (["line skip: 2", "byte skip: 7"], ["byte skip: -1"]):
        head = "\n".join(["NRRD0005", *FIELDS, *more, "data file: a.bin"])
        (tmp_path / "a.nhdr").write_text(f"{head}\n")
        with open_source(tmp_path / "a.nhdr") as source:
            check(source)


def test_channels_and_times_are_chosen_or_refused(tmp_path):
    pixels = np.stack([STACK, STACK + 1], axis=-1)
    fields = ["type: ushort", "dimension: 4", "sizes: 2 40 30 5", "encoding: raw", "endian: little"]
    path = by_hand(tmp_path / "a.nrrd", [*fields, "kinds: vector domain domain domain"], pixels)
    with pytest.raises(VolumeError, match="2 channels"):
        open_source(path)
    with open_source(path, channel=1) as source:
        check(source, STACK + 1)
    path = by_hand(tmp_path / "b.nrrd", [*fields, "kinds: time domain domain domain"], pixels)
    with pytest.raises(VolumeError, match="2 along axis T"):
        open_source(path)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ([*FIELDS, "kinds: RGB-color domain domain"], "colour"),
        (["type: ushort", "dimension: 3", "sizes: 40 30 5", "encoding: raw"], "does not state its byte order"),
        ([*FIELDS[:3], "encoding: ascii"], "has the encoding 'ascii'"),
        (["type: block", *FIELDS[1:], "block size: 4"], "type 'block'"),
        ([*FIELDS, "data file: LIST"], "several files"),
        ([*FIELDS, "data file: s%03d.raw 1 5 1"], "several files"),
        ([*FIELDS, "data file: ../a.raw"], "lies in another folder"),
        ([*FIELDS, "data file: absent.raw"], "does not exist"),
        ([*FIELDS[:2], "sizes: 40 30 6", *FIELDS[3:]], "truncated"),
        ([*FIELDS[:2], "sizes: 40 30", *FIELDS[3:]], "damaged"),
        ([*FIELDS, "nonsense"], "cannot be read as NRRD"),
        ([*FIELDS, "byte skip: -2"], "byte skip -2"),
    ],
)  # fmt: skip
def test_what_is_not_read_is_refused_in_one_line(tmp_path, capsys, fields, reason):
    (tmp_path / "in").mkdir()
    assert main(["inspect", str(by_hand(tmp_path / "in" / "a.nrrd", fields))]) == 3
    said = capsys.readouterr().err
    assert reason in said
    assert said.count("\n") == 1


def test_cut_packed_pixels_are_refused(tmp_path):
    path = written(tmp_path / "a.nrrd", encoding="gzip")
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(VolumeError, match="cannot be unpacked"):
        open_source(path)


def test_without_pynrrd_the_extra_is_named(tmp_path, capsys, monkeypatch):
    path = written(tmp_path / "a.nrrd")
    monkeypatch.setitem(sys.modules, "nrrd", None)
    assert main(["inspect", str(path)]) == 3
    assert "needs the extra emsr-fast[formats]: pynrrd is not installed" in capsys.readouterr().err


def test_a_stack_is_read_a_slice_at_a_time(tmp_path):
    path = written(tmp_path / "a.nrrd", np.ones((50, 1024, 1024), "u1"), encoding="raw")
    assert rise_in_memory(path) < 21 * 2**20

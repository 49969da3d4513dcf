"""The tags of DigitalMicrograph files: rare types, and every way in which they may be damaged."""

import struct

import numpy as np
import pytest

from dm_files import Writer, image, thumbnail, write_dm
from emsr_fast.errors import VolumeError
from emsr_fast.io.readers.parts.dm_tags import StoredArray, read_tags
from emsr_fast.io.registry import open_source


def test_groups_without_end_and_lists_without_measure_are_refused(tmp_path):
    deep: dict = {}
    for _ in range(100):
        deep = {"a": deep}
    path = tmp_path / "deep.dm4"
    path.write_bytes(Writer().file(deep))
    with pytest.raises(VolumeError, match="more than 64 deep"):
        open_source(path)
    path.write_bytes(Writer().file({})[:18] + (2**40).to_bytes(8, "big"))
    with pytest.raises(VolumeError, match="a group claims"):
        open_source(path)


def raw_tag(described, data=b""):
    """A DM4 file whose second tag is written by hand, behind one that is to be found and before another."""
    made = Writer().file({"First": 1, "Odd": 7, "Last": 2})
    old = Writer()._value(7)
    at = made.index(old)
    numbers = struct.pack(f">{len(described) + 1}q", len(described), *described)
    return made[:at] + b"%%%%" + numbers + data + made[at + len(old) :]


@pytest.mark.parametrize(
    ("described", "data", "expected"),
    [
        ([20, 20, 6, 3, 2], bytes(24), ("24 bytes", "12s", 2)),  # arrays of three floats
        ([20, 20, 15, 0, 2, 0, 6, 0, 2, 3, 2], bytes(36), ("36 bytes", "18s", 2)),  # arrays of structures
        ([18, 3], "abc".encode("utf-16-le"), "abc"),
        ([15, 0, 2, 0, 3, 0, 8], struct.pack("<i?", -5, True), (-5, True)),
        ([11], struct.pack("<q", -(2**40)), -(2**40)),
    ],
)
def test_tags_of_rare_types_are_passed_over_or_read(tmp_path, described, data, expected):
    (tmp_path / "a.dm4").write_bytes(raw_tag(described, data))
    root = read_tags(tmp_path / "a.dm4").root
    assert (root.number("First"), root.number("Last")) == (1, 2)
    found = root.get("Odd")
    if isinstance(found, StoredArray):
        assert (found.codes, found.count) == expected[1:]
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("described", "reason"),
    [
        ([99], "a value has type 99"),
        ([], "described by 0 numbers"),
        ([18, 2**40], "a text claims"),
        ([15, 0, 3, 0, 6], "fields are not those it counts"),
        ([20, 6, -1], "an array claims -4 bytes"),
        ([20, 6, 2**40], "an array claims"),
        ([20, 20, 6, -1, 2], "an array within an array claims -4 bytes"),
        ([20, 20, 6, 2**62, 2], "an array within an array claims"),
        ([20, 20, 6], "a value has type 20"),
    ],
)
def test_tags_that_are_described_wrongly_are_damage(tmp_path, described, reason):
    (tmp_path / "a.dm4").write_bytes(raw_tag(described))
    with pytest.raises(VolumeError, match=f"truncated or damaged: .*{reason}"):
        open_source(tmp_path / "a.dm4")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [(b"%%%%", b"%%%&", "does not begin with its mark"), (b"\x15\0\5Units", b"\x16\0\5Units", "an entry has type 22")],
)
def test_tags_without_their_mark_or_kind_are_damage(tmp_path, old, new, reason):
    path = write_dm(tmp_path / "a.dm4", thumbnail(), image(np.ones((4, 4), "u2"), steps=2 * ((2.0, "nm"),)))
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    with pytest.raises(VolumeError, match=reason):
        open_source(path)


def test_a_long_array_is_passed_over_and_a_short_text_read(tmp_path):
    path = tmp_path / "a.dm4"
    path.write_bytes(Writer().file({"Text": "µm", "Numbers": np.arange(10, dtype="f4"), "Pair": (1.0, 2.0)}))
    root = read_tags(path).root
    assert root.text("Text") == "µm"
    assert root.get("Pair") == (1.0, 2.0)
    stored = root.get("Numbers")
    assert isinstance(stored, StoredArray)
    assert (stored.codes, stored.count) == ("f", 10)

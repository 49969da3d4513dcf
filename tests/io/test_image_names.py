"""Folders of images: gaps in the numbers, one name twice, copies."""

import pytest

from emsr_fast.cli import main
from emsr_fast.errors import VolumeError
from emsr_fast.io.readers.parts.image_names import gaps
from emsr_fast.io.registry import open_source
from image_folders import save


@pytest.mark.parametrize(
    ("names", "notes"),
    [
        (["s1", "s2", "s4", "s5"], ["numbers run from 1 to 5, missing: 3"]),
        (["s001", "s002", "s010"], ["numbers run from 1 to 10, missing: 3 to 9"]),
        (["z0000", "z0010", "z0020", "z0040"], ["numbers run from 0 to 40 in steps of 10, missing: 30"]),
        (["s1", "s2", "s3"], []),
        (["s1", "s3", "s5"], []),
        (["a", "b"], []),
        (["s1"], []),
        # the number that changes is the slice's, wherever it stands
        (["em7_z1_c0", "em7_z2_c0", "em7_z4_c0"], ["numbers run from 1 to 4, missing: 3"]),
        # of two that change, the one that counts
        (
            ["Sec001_20200101", "Sec002_20200103", "Sec004_20200107", "Sec005_20200109", "Sec006_20200115"],
            ["numbers run from 1 to 6, missing: 3"],
        ),
        (
            ["20200101_Sec001", "20200103_Sec002", "20200107_Sec004", "20200109_Sec005", "20200115_Sec006"],
            ["numbers run from 1 to 6, missing: 3"],
        ),
        (
            ["s001_z0030nm", "s002_z0060nm", "s004_z0120nm", "s005_z0150nm", "s006_z0180nm"],
            ["numbers run from 1 to 6, missing: 3"],
        ),
        # of two that change, none of which counts, nobody knows which is
        (["r1_c1", "r1_c4", "r2_c9"], []),
        # one that is named otherwise hides no gap
        (["s1", "s2", "s4", "overview"], ["numbers run from 1 to 4, missing: 3"]),
        (["s01", "s1", "s2"], ["numbers that come twice, as 1 and 01 do: 1"]),
        (
            [f"s{n}" for n in (1, 2, 4, 6, 8, 10, 12, 14)],
            ["numbers run from 1 to 14, missing: 3, 5, 7, 9, 11 and 1 more"],
        ),
    ],
)
def test_gaps_in_the_numbers_are_noted(names, notes):
    assert gaps(names) == notes


def test_a_gap_is_shown_by_inspect(tmp_path, capsys):
    save(tmp_path, "s1.png", "s2.png", "s4.png")
    assert main(["inspect", str(tmp_path)]) == 0
    assert "note    numbers run from 1 to 4, missing: 3\n" in capsys.readouterr().out
    with open_source(tmp_path) as source:
        assert source.shape[0] == 3


def test_one_name_with_two_suffixes_is_refused_with_both(tmp_path):
    save(tmp_path, "s1.png", "s2.png", "s1.tif")
    with pytest.raises(VolumeError, match=r"has s1\.png and s1\.tif, one name with two suffixes"):
        open_source(tmp_path)


@pytest.mark.parametrize("names", [("s1.ome.tif", "s1.tif"), ("s1.tif", "s1.tif.png"), ("s1.TIF", "s1.png")])
def test_one_name_with_more_suffixes_is_refused_too(tmp_path, names):
    save(tmp_path, *names, "s2.tif")
    with pytest.raises(VolumeError, match="one name with two suffixes"):
        open_source(tmp_path)


def test_one_name_in_capitals_and_small_letters_is_refused(tmp_path):
    save(tmp_path, "s1.tif", "S1.tif", "s2.tif")
    with pytest.raises(VolumeError, match="one name but for capital letters; move one of them away"):
        open_source(tmp_path)


def test_copies_and_folders_named_like_images_are_noted(tmp_path):
    save(tmp_path, "s1.png", "s2.png", "s2 (1).png", "s2 - Copy.png", "t (1).png")
    (tmp_path / "s3.png").mkdir()
    with open_source(tmp_path) as source:
        assert source.shape[0] == 5
        assert "1 folder with an image's name skipped: s3.png" in source.info.notes
        (told,) = [note for note in source.info.notes if "copy" in note]
    assert told.startswith("2 files with a copy's name, each a slice all the same: ")
    assert "s2 (1).png" in told
    assert "s2 - Copy.png" in told

"""Folders of images: what is missing is said, what cannot be read is a slice that fails, never one that is dropped."""

import json
import os

import numpy as np
import pytest
import tifffile

from emsr_fast.cli import main
from emsr_fast.errors import VolumeError
from emsr_fast.evaluate.job import evaluate
from emsr_fast.io.registry import open_source
from emsr_fast.pair.job import pair
from emsr_fast.train.config import Source
from emsr_fast.train.pairs import pairs_of
from image_folders import picture, save

EVERYTHING = slice(None)
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1234\n"


def broken(folder, kind):
    """Make s2.tif of three something that cannot be read; return the reason expected."""
    path = folder / "s2.tif"
    save(folder, "s1.tif", "s2.tif", "s3.tif")
    if kind == "empty":
        path.write_bytes(b"")
        return "is empty (0 bytes)"
    if kind == "cut":
        os.truncate(path, path.stat().st_size - 300)
        return "is truncated: slice 0 ends at byte"
    if kind == "cut to the header":
        os.truncate(path, 8)
        return "s2.tif"
    if kind == "pointer":
        path.write_text(POINTER)
        return "is a Git LFS pointer, not the image itself; fetch it with: git lfs pull"
    if kind == "a page of the web":
        path.write_text("<html>404</html>")
        return "cannot be decoded as PNG or JPEG"
    path.unlink()
    if kind == "broken link":
        path.symlink_to("/nowhere/else.tif")
        return "is a broken link to /nowhere/else.tif"
    if kind == "link to itself":
        path.symlink_to("s2.tif")
        return "is a broken link to s2.tif"
    assert kind == "pipe"
    os.mkfifo(path)
    return "is neither a file nor a folder"


KINDS = ("empty", "cut", "cut to the header", "pointer", "a page of the web", "broken link", "link to itself", "pipe")


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_cannot_be_read_is_one_slice_that_fails(tmp_path, kind):
    reason = broken(tmp_path, kind)
    with open_source(tmp_path) as source:
        assert source.shape == (3, 20, 30)
        (z, said), *others = source.info.damaged.items()
        assert (z, others) == (1, [])
        assert "s2.tif" in said
        assert reason in said
        assert any(note.startswith("1 of 3 slices cannot be read: slice 1: ") for note in source.info.notes)
        assert (source.read(0, EVERYTHING, EVERYTHING) == picture(0)).all()
        assert (source.read(2, EVERYTHING, EVERYTHING) == picture(2)).all()
        with pytest.raises(VolumeError, match=r"s2\.tif"):
            source.read(1, EVERYTHING, EVERYTHING)


@pytest.mark.parametrize("kind", KINDS)
def test_such_a_file_by_itself_is_refused_for_the_same_reason(tmp_path, kind):
    reason = broken(tmp_path, kind)
    with pytest.raises(VolumeError) as refused:
        open_source(tmp_path / "s2.tif")
    if kind != "a page of the web":
        assert reason in str(refused.value)


def test_the_first_readable_file_says_what_the_stack_is(tmp_path):
    save(tmp_path, "s1.png", "s2.png", "s3.png")
    (tmp_path / "s1.png").write_bytes(b"")
    with open_source(tmp_path) as source:
        assert (source.shape, source.dtype) == ((3, 20, 30), np.uint8)


def test_a_folder_without_a_readable_file_is_refused_for_the_first_reason(tmp_path):
    for name in ("s1.tif", "s2.tif"):
        (tmp_path / name).write_text(POINTER)
    with pytest.raises(VolumeError, match=r"s1\.tif is a Git LFS pointer"):
        open_source(tmp_path)


def test_infer_does_the_rest_and_ends_with_exit_code_4(tmp_path, capsys):
    (folder := tmp_path / "stack").mkdir()
    broken(folder, "pointer")
    output = tmp_path / "out.ome.zarr"
    arguments = ["infer", str(folder), "-o", str(output), "--input-voxel", "ignore", "--device", "cpu"]
    assert main(arguments) == 4
    assert "note    1 of 3 slices cannot be read: slice 1: " in capsys.readouterr().err
    failed = json.loads((tmp_path / "out.ome.zarr.partial" / "failed.json").read_text())
    assert list(failed["slices"]) == ["1"]
    assert "git lfs pull" in failed["slices"]["1"]
    # the file is mended: the same command does what is missing
    tifffile.imwrite(folder / "s2.tif", picture(1))
    assert main(arguments) == 0
    with open_source(output) as source:
        assert source.shape == (3, 60, 90)


def test_training_refuses_such_a_slice_before_it_starts(tmp_path):
    broken(tmp_path, "empty")
    source = Source(strategy="synthetic", hr=tmp_path, volume=True)
    with pytest.raises(VolumeError, match=r"slice 1 of .*s2\.tif is empty .0 bytes.*or leave it out"):
        pairs_of(source, 2, 4, tmp_path / "cache")
    training, _ = pairs_of(source.model_copy(update={"slices": "2:3"}), 2, 4, tmp_path / "cache")
    assert [pair.z for pair in training] == [2]


def test_training_refuses_one_name_with_two_suffixes(tmp_path):
    save(tmp_path, "s1.png", "s1.tif")
    with pytest.raises(VolumeError, match="one name with two suffixes"):
        pairs_of(Source(strategy="synthetic", hr=tmp_path), 2, 4, tmp_path / "cache")


def test_evaluation_leaves_such_a_slice_out_with_its_reason(tmp_path):
    for name in ("sr", "reference"):
        (tmp_path / name).mkdir()
        save(tmp_path / name, "s1.tif", "s2.tif", "s3.tif")
    (tmp_path / "reference" / "s2.tif").write_text(POINTER)
    found = evaluate(tmp_path / "sr", tmp_path / "report", reference=tmp_path / "reference")
    rows = {row["slice"]: row["left_out"] for row in found["slices"] if row["image"] == "sr"}
    assert (rows[0], rows[2]) == (None, None)
    assert "git lfs pull" in rows[1]
    assert any("1 of 3 slices left out: unreadable." in line for line in found["summary"]["What was measured"])


def test_pairing_names_such_a_slice_before_it_searches(tmp_path):
    broken(tmp_path, "pointer")
    tifffile.imwrite(
        tmp_path.parent / f"{tmp_path.name}.tif", np.zeros((3, 90, 90), np.uint8), photometric="minisblack"
    )
    with pytest.raises(VolumeError, match=r"HR slice 1: .*git lfs pull.*leave it out with `slices`"):
        pair(tmp_path.parent / f"{tmp_path.name}.tif", tmp_path, tmp_path.parent / f"{tmp_path.name}.pairs", scale=2)


def test_a_dry_run_measures_a_slice_that_can_be_read(tmp_path, capsys):
    (folder := tmp_path / "stack").mkdir()
    broken(folder, "pointer")
    arguments = ["infer", str(folder), "-o", str(tmp_path / "out.ome.zarr"), "--input-voxel", "ignore"]
    assert main([*arguments, "--device", "cpu", "--dry-run"]) == 0
    assert "blocks  1 of" in capsys.readouterr().err


def slices_under(folder, suffix):
    """Write three small TIFF slices named 0, 1, 2 with ``suffix``."""
    folder.mkdir()
    for number in range(3):
        tifffile.imwrite(folder / f"{number}{suffix}", np.full((8, 9), number, np.uint8), photometric="minisblack")
    return folder


@pytest.mark.parametrize("suffix", [".btf", ".tf8", ".LSM", ".stk", ".dat", ""])
def test_slices_are_told_by_their_content_whatever_their_name(tmp_path, suffix):
    folder = slices_under(tmp_path / "slices", suffix)
    with open_source(folder) as source:
        assert [int(source.read(z, slice(0, 1), slice(0, 1))[0, 0]) for z in range(source.shape[0])] == [0, 1, 2]


def test_a_slice_of_another_suffix_counts_beside_tif_and_a_backup_does_not(tmp_path):
    folder = slices_under(tmp_path / "slices", ".tif")
    (folder / "0.tif").rename(folder / "0.btf")
    (folder / "2.tif.bak").write_bytes((folder / "2.tif").read_bytes())
    with open_source(folder) as source:
        assert source.shape == (3, 8, 9)
        assert any("skipped: 2.tif.bak" in note for note in source.info.notes)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {f"{n}.jp2": b"\0\0\0\x0cjP  \r\n\x87\n" for n in range(8)},
            r"8 files \*\.jp2 \(JPEG 2000\).*convert them to TIFF",
        ),
        ({"0.bmp": b"BM12", "1.bmp": b"BM12", "log.txt": b"x"}, r"2 files \*\.bmp, 1 file \*\.txt \(BMP\)"),
        ({"a.h5": b"\x89HDF\r\n\x1a\n" + bytes(99)}, r"1 file \*\.h5.*; give one of them by itself"),
        ({"readme": b"x"}, r"1 file without a suffix"),
        ({}, "it is empty"),
        ({"run1/0.png": b"", "run2/0.png": b""}, r"2 folders and no file; give one of them: run1, run2"),
    ],
)
def test_a_folder_without_images_says_what_it_holds(tmp_path, files, said):
    (tmp_path / "f").mkdir()
    for name, content in files.items():
        (tmp_path / "f" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "f" / name).write_bytes(content)
    with pytest.raises(VolumeError, match=said):
        open_source(tmp_path / "f")


@pytest.mark.parametrize(
    ("content", "kind"), [(b"BM12", "BMP"), (b"\xff\x4f\xff\x51", "JPEG 2000"), (bytes(128) + b"DICM", "DICOM")]
)
def test_a_file_of_a_format_that_is_not_read_says_which(tmp_path, content, kind):
    (tmp_path / "a.img").write_bytes(content)
    with pytest.raises(VolumeError, match=f"is {kind}, which is not read"):
        open_source(tmp_path / "a.img")

"""CZI files, written by libCZI and compared with what czifile, an independent reader, finds where it is installed."""

import re
import sys

import numpy as np
import pytest

from emsr_fast.cli import main
from emsr_fast.errors import UsageError, VolumeError
from emsr_fast.io.registry import open_source
from reading import rise_in_memory

czi = pytest.importorskip("pylibCZIrw.czi")
STACK = (np.arange(3 * 60 * 80).reshape(3, 60, 80) * 7 % 60000).astype("u2")


def write_czi(path, tiles, *, scale_m=(3e-8, 5e-9, 4e-9), compression="uncompressed:"):
    """Write tiles: pixels (rows, columns), and C, Z, T, scene, row and column of the first where they are not 0."""
    with czi.create_czi(str(path), exist_ok=True, compression_options=compression) as file:
        for pixels, where in tiles:
            image = pixels if pixels.ndim == 3 else pixels[..., None]
            plane = {name: where.get(name, 0) for name in "CZT"}
            place = (where.get("column", 0), where.get("row", 0))
            file.write(np.ascontiguousarray(image), plane=plane, location=place, scene=where.get("scene", 0))
        z, y, x = scale_m
        file.write_metadata("a test", scale_x=x, scale_y=y, scale_z=z)
    return path


def stack(path, pixels=STACK, **options):
    return write_czi(path, [(plane, {"Z": z}) for z, plane in enumerate(pixels)], **options)


def check(source, pixels=STACK):
    assert (source.shape, source.dtype) == (pixels.shape, pixels.dtype)
    for z, plane in enumerate(pixels):
        np.testing.assert_array_equal(source.read(z, slice(None), slice(None)), plane)
    np.testing.assert_array_equal(source.read(0, slice(13, 40), slice(5, 61)), pixels[0, 13:40, 5:61])


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("compression", ["uncompressed:", "zstd0:ExplicitLevel=3", "zstd1:"])
def test_a_stack_of_each_type_and_compression(tmp_path, dtype, compression):
    pixels = (STACK % 250).astype(dtype)
    with open_source(stack(tmp_path / "a.czi", pixels, compression=compression)) as source:
        assert (source.info.format, source.info.voxel_size_nm) == ("CZI", (30, 5, 4))
        assert source.info.voxel_size_from == "CZI scaling"
        assert source.info.notes == ()
        check(source, pixels)


def test_an_independent_reader_finds_the_same_pixels(tmp_path):
    czifile = pytest.importorskip("czifile")
    path = stack(tmp_path / "a.czi")
    with open_source(path) as source:
        check(source, czifile.imread(str(path)).reshape(STACK.shape))


def test_a_size_of_0_is_unknown(tmp_path):
    with open_source(stack(tmp_path / "a.czi", scale_m=(0, 5e-9, 4e-9))) as source:
        assert source.info.voxel_size_nm == (None, 5, 4)


def test_tiles_of_a_mosaic_are_put_together(tmp_path):
    parts = [(0, 60, 0, 50), (0, 60, 50, 80)]
    tiles = [
        (plane[top:bottom, left:right], {"Z": z, "row": top - 7, "column": left + 1000})
        for z, plane in enumerate(STACK)
        for top, bottom, left, right in parts
    ]
    with open_source(write_czi(tmp_path / "a.czi", tiles)) as source:
        check(source)
        assert source.info.notes == ("a mosaic of 6 tiles: put together as the file says",)


def test_one_of_several_scenes_is_named_with_key(tmp_path):
    tiles = [(STACK[0], {"scene": 0}), (STACK[1, :40], {"scene": 1, "column": 500})]
    path = write_czi(tmp_path / "a.czi", tiles)
    with pytest.raises(VolumeError, match=r"2 images; name one with `key`: 0 \(scene of 60 x 80\), 1 \(scene of 40"):
        open_source(path)
    for place, pixels in ((f"{path}:/0", STACK[:1]), (f"{path}:/1", STACK[1:2, :40])):
        with open_source(place) as source:
            np.testing.assert_array_equal(source.read(0, slice(None), slice(None)), pixels[0])
    with pytest.raises(VolumeError, match="has no image '2'"):
        open_source(path, "2")
    with pytest.raises(VolumeError, match="one scene: leave `key=1` out"):
        open_source(stack(tmp_path / "b.czi"), "1")


def test_channels_are_chosen_and_times_refused(tmp_path):
    tiles = [(plane + c, {"Z": z, "C": c}) for z, plane in enumerate(STACK) for c in range(2)]
    path = write_czi(tmp_path / "a.czi", tiles)
    with pytest.raises(VolumeError, match="2 channels"):
        open_source(path)
    with pytest.raises(UsageError, match="channel 2"):
        open_source(path, channel=2)
    for c in range(2):
        with open_source(path, channel=c) as source:
            check(source, STACK + np.uint16(c))
    path = write_czi(tmp_path / "b.czi", [(STACK[0], {"T": t}) for t in range(2)])
    with pytest.raises(VolumeError, match="2 along axis T"):
        open_source(path)


def test_slices_that_are_not_stored_are_counted(tmp_path):
    with open_source(write_czi(tmp_path / "a.czi", [(STACK[0], {"Z": 0}), (STACK[2], {"Z": 2})])) as source:
        assert source.info.absent == {"not_stored": 1, "looked_for": 3, "chunks": 3}
        assert not source.read(1, slice(None), slice(None)).any()


def test_colour_is_refused(tmp_path):
    path = write_czi(tmp_path / "a.czi", [(np.ones((20, 30, 3), "u1"), {})])
    with pytest.raises(VolumeError, match="is in colour"):
        open_source(path)


def test_a_file_cut_anywhere_is_refused_in_one_line(tmp_path, capsys):
    whole = stack(tmp_path / "a.czi").read_bytes()
    for length in range(10, len(whole) - 200, len(whole) // 13):
        (tmp_path / "a.czi").write_bytes(whole[:length])
        assert main(["inspect", str(tmp_path / "a.czi")]) == 3
        said = capsys.readouterr().err
        assert re.match(r"error: .*a\.czi (cannot be read as CZI|is truncated or damaged)", said)
        assert said.count("\n") == 1


def test_without_the_library_the_extra_is_named(tmp_path, capsys, monkeypatch):
    path = stack(tmp_path / "a.czi")
    monkeypatch.setitem(sys.modules, "pylibCZIrw.czi", None)
    assert main(["inspect", str(path)]) == 3
    assert "needs the extra emsr-fast[formats]: pylibCZIrw is not installed" in capsys.readouterr().err


def test_a_stack_is_read_a_slice_at_a_time(tmp_path):
    path = write_czi(tmp_path / "a.czi", [(np.full((1024, 1024), z, "u1"), {"Z": z}) for z in range(50)])
    assert rise_in_memory(path) < 21 * 2**20

"""TIFF: parts of large pages, series to choose, axes to name, and pixel sizes that microscopes write."""

import numpy as np
import pytest
import tifffile

from emsr_fast.cli import main
from emsr_fast.errors import UsageError, VolumeError
from emsr_fast.io.readers.tiff import pages as tiff_pages
from emsr_fast.io.registry import create_target, open_source
from emsr_fast.io.volume import TargetSpec

PIXELS = np.random.default_rng(0).integers(0, 120, (4, 70, 90)).astype(np.uint16)

LAYOUTS = {
    "one strip": {"rowsperstrip": 70},
    "strips": {"rowsperstrip": 16},
    "deflated strips": {"rowsperstrip": 16, "compression": "zlib", "predictor": True},
    "deflated tiles": {"tile": (32, 16), "compression": "zlib"},
    "plain tiles": {"tile": (16, 32)},
    "big-endian": {"byteorder": ">", "rowsperstrip": 7},
    "big-endian tiles": {"byteorder": ">", "tile": (16, 16), "compression": "zlib"},
    "jpeg tiles": {"tile": (16, 16), "compression": "jpeg"},
    "one page entry for all": {"metadata": {"truncate": True, "axes": "ZYX"}},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_parts_of_large_pages_are_what_the_whole_is(tmp_path, monkeypatch, layout):
    pixels = PIXELS.astype(np.uint8) if "jpeg" in layout else PIXELS
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", **LAYOUTS[layout])
    expected = tifffile.imread(tmp_path / "a.tif")
    monkeypatch.setattr(tiff_pages, "_WHOLE_BYTES", 0)
    with open_source(tmp_path / "a.tif") as source:
        parts = [(0, slice(0, 70), slice(0, 90)), (3, slice(13, 50), slice(31, 90)), (1, slice(69, 70), slice(0, 1))]
        for z, rows, cols in parts:
            np.testing.assert_array_equal(source.read(z, rows, cols), expected[z, rows, cols])


def test_a_large_page_is_not_decoded_whole(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, photometric="minisblack", tile=(16, 16), compression="zlib")
    monkeypatch.setattr(tiff_pages, "_WHOLE_BYTES", 0)
    monkeypatch.setattr(tiff_pages.PageReader, "_page", None)  # would fail if it were called
    with open_source(tmp_path / "a.tif") as source:
        assert source.info.chunks == (1, 16, 16)
        source.read(2, slice(20, 30), slice(20, 30))
        assert len(source._reader._kept) == 1


def test_a_slice_larger_than_a_gigabyte_is_read_in_place(tmp_path):
    # a sparse file: only the block written takes space
    block = np.full((8, 9), 7, np.uint8)
    with create_target(tmp_path / "a.tif", TargetSpec((2, 40_000, 40_000), block.dtype, scale=3)) as target:
        target.write(1, slice(39_992, 40_000), slice(39_991, 40_000), block)
        target.commit()
    with open_source(tmp_path / "a.tif") as source:
        found = source.read(1, slice(39_990, 40_000), slice(39_990, 40_000))
    np.testing.assert_array_equal(found[2:, 1:], block)
    assert not found[:2].any()


def test_a_damaged_tile_of_a_large_page_is_named(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, photometric="minisblack", tile=(16, 16), compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        offset, count = file.pages[1].dataoffsets[3], file.pages[1].databytecounts[3]
    with (tmp_path / "a.tif").open("r+b") as file:
        file.seek(offset)
        file.write(bytes(count))
    monkeypatch.setattr(tiff_pages, "_WHOLE_BYTES", 0)
    with open_source(tmp_path / "a.tif") as source:
        source.read(1, slice(0, 16), slice(0, 48))
        with pytest.raises(VolumeError, match=r"slice 1 of .*a\.tif cannot be read"):
            source.read(1, slice(0, 16), slice(0, 90))


def test_series_are_chosen_by_number_with_their_own_voxel_size(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        for size, pixels in ((4.0, PIXELS), (8.0, PIXELS[:, ::2, ::2])):
            file.write(pixels, photometric="minisblack",
                       metadata={"axes": "ZYX", "PhysicalSizeX": size, "PhysicalSizeXUnit": "nm"})  # fmt: skip
    with pytest.raises(VolumeError, match=r"2 images; name one with `key`: 0 \(4 x 70 x 90 uint16\), 1 \("):
        open_source(tmp_path / "a.ome.tif")
    for name, expected, size in (("0", PIXELS, 4.0), ("1", PIXELS[:, ::2, ::2], 8.0)):
        with open_source(tmp_path / "a.ome.tif", key=name) as source:
            assert source.info.voxel_size_nm == (None, None, size)
            np.testing.assert_array_equal(source.read(2, slice(None), slice(None)), expected[2])
    with pytest.raises(VolumeError, match="no image '2'"):
        open_source(f"{tmp_path}/a.ome.tif:2")


def test_axes_say_what_pages_are(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, photometric="minisblack", metadata={"axes": "CYX"})
    with pytest.raises(VolumeError, match="4 channels"):
        open_source(tmp_path / "a.tif")
    with open_source(tmp_path / "a.tif", axes="zyx") as source:
        assert source.shape == PIXELS.shape
    for axes in ("YXZ", "TZYX"):
        with pytest.raises(UsageError, match="C=4, Y=70, X=90"):
            open_source(tmp_path / "a.tif", axes=axes)


@pytest.mark.parametrize("axes", ["", "ZZYX", "ZY", "Z,Y,X", "ZYX1"])
def test_axes_that_are_none_are_refused_before_anything_is_read(axes):
    with pytest.raises(UsageError, match="must name each axis once"):
        open_source("/nowhere.tif", axes=axes)


@pytest.mark.parametrize(
    ("tag", "text", "expected"),
    [
        (34682, "[Scan]\r\nPixelWidth=4.0e-9\r\nPixelHeight=5.0e-9\r\n", (None, 5.0, 4.0)),
        (34680, "[EScan]\r\nPixelWidth=4.0e-9\r\nPixelHeight=5.0e-9\r\n", (None, 5.0, 4.0)),
        (34118, "\r\nAP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size = 5.582 nm\r\n", (None, 5.582, 5.582)),
        (34682, "[Stage]\r\nStageX=1\r\n", (None, None, None)),
    ],
)
def test_the_pixel_size_that_a_microscope_wrote_goes_before_the_printers(tmp_path, tag, text, expected):
    tifffile.imwrite(tmp_path / "a.tif", PIXELS[0], resolution=(72, 72), resolutionunit="INCH",
                     extratags=[(tag, 2, 0, text, True)])  # fmt: skip
    with open_source(tmp_path / "a.tif") as source:
        assert source.info.voxel_size_nm == pytest.approx(expected)


def test_inspect_and_infer_take_key_and_axes(tmp_path, capsys):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(np.zeros((9, 9), np.uint8))
        file.write(PIXELS[:, :12, :16].astype(np.uint8), photometric="minisblack", metadata={"axes": "TYX"})
    assert main(["inspect", str(tmp_path / "a.tif"), "--key", "1", "--axes", "zyx"]) == 0
    shown = capsys.readouterr().out
    assert "key     1" in shown
    assert "4 x 12 x 16 (Z, Y, X)" in shown
    assert main(["infer", str(tmp_path / "a.tif"), "-o", str(tmp_path / "o.mrc"), "--key", "1"]) == 0
    with open_source(tmp_path / "o.mrc") as source:
        assert source.shape == (4, 36, 48)
    capsys.readouterr()
    assert main(["infer", str(tmp_path / "a.tif"), "-o", str(tmp_path / "o.h5")]) == 3
    assert "name one with --key: 0 (9 x 9 uint8), 1 (" in capsys.readouterr().err
    assert main(["infer", f"{tmp_path}/a.tif:1", "-o", str(tmp_path / "a.tif"), "--overwrite"]) == 2
    assert "is the input itself" in capsys.readouterr().err

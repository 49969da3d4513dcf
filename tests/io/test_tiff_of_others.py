"""TIFF as other programs leave it: axes of length 1, tiles that are not stored, OME metadata and sets with faults."""

import shutil
import struct

import numpy as np
import pytest
import tifffile

from emsr_fast.cli import main
from emsr_fast.errors import VolumeError
from emsr_fast.io.readers.tiff import pages as tiff_pages
from emsr_fast.io.registry import open_source

EVERYTHING = slice(None)
PIXELS = np.random.default_rng(0).integers(1, 255, (4, 48, 64)).astype(np.uint8)


def slices_of(path, **options):
    """All slices of ``path``, and what is said of it."""
    with open_source(path, **options) as source:
        return np.stack([source.read(z, EVERYTHING, EVERYTHING) for z in range(source.shape[0])]), source.info


@pytest.mark.parametrize(
    "shape", [(1, 1, 4, 48, 64), (1, 4, 48, 64), (4, 1, 48, 64), (4, 48, 64, 1), (4, 1, 1, 48, 64, 1)]
)
@pytest.mark.parametrize("options", [{}, {"metadata": {"truncate": True}}, {"bigtiff": True}])
def test_axes_of_length_1_are_dropped_wherever_they_are(tmp_path, shape, options):
    tifffile.imwrite(tmp_path / "a.tif", PIXELS.reshape(shape), photometric="minisblack", **options)
    found, _ = slices_of(tmp_path / "a.tif")
    np.testing.assert_array_equal(found, PIXELS)
    if len(shape) == 5:
        found, info = slices_of(tmp_path / "a.tif", axes="TCZYX")
        np.testing.assert_array_equal(found, PIXELS)
        assert info.axes == "ZYX"


@pytest.mark.parametrize("small", [PIXELS[0, ::4, ::4], np.zeros((12, 16, 3), "u1")], ids=["grey", "colour"])
@pytest.mark.parametrize("first", [False, True])
def test_smaller_copies_for_viewers_are_left_out(tmp_path, small, first):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        for image in (small, PIXELS[0]) if first else (PIXELS[0], small):
            kind = {"photometric": "rgb" if image.ndim == 3 else "minisblack", "subfiletype": int(image is small)}
            file.write(image, metadata=None, **kind)
    stack, info = slices_of(path)
    np.testing.assert_array_equal(stack, PIXELS[:1])
    # tifffile itself leaves out grey ones that come later
    if first or small.ndim == 3:
        assert "1 smaller copy of the image left out: `key` chooses them" in info.notes


def test_one_row_and_one_slice_stay(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", PIXELS[:1, :1].reshape(1, 1, 1, 64), photometric="minisblack")
    assert slices_of(tmp_path / "a.tif")[0].shape == (1, 1, 64)


def page_by_page(path, **options):
    """Write a stack whose pages share nothing."""
    with tifffile.TiffWriter(path, bigtiff=options.pop("bigtiff", False)) as file:
        for image in PIXELS:
            file.write(image, photometric="minisblack", metadata=None, contiguous=False, **options)


def without(path, numbers, page=0, offset=0):
    """Make strips or tiles of a page of ``path`` ones that are not stored."""
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        tags = file.pages[page].tags
        for tag in (tags[code] for code in (273, 279, 324, 325) if code in tags):
            size = struct.calcsize({3: "H", 4: "I", 16: "Q"}[int(tag.dtype)])
            for number in numbers:
                value = offset if tag.code in (273, 324) else 0
                at = tag.valueoffset + number * size
                data[at : at + size] = value.to_bytes(size, "little")
    path.write_bytes(data)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kind", [{"tile": (16, 16)}, {"rowsperstrip": 16}, {"tile": (16, 16), "bigtiff": True}])
@pytest.mark.parametrize("nodata", [0, 200])
@pytest.mark.parametrize("large", [False, True])
def test_strips_and_tiles_that_are_not_stored_read_as_0_or_as_gdal_says(
    tmp_path, monkeypatch, compression, kind, nodata, large
):
    tags = [(42113, "s", 0, f"{nodata}", True)] if nodata else []
    path = tmp_path / "a.tif"
    page_by_page(path, compression=compression, extratags=tags, **kind)
    without(path, [1], page=2)
    expected = PIXELS.copy()
    expected[(2, slice(0, 16), slice(16, 32)) if "tile" in kind else (2, slice(16, 32))] = nodata
    if large:
        monkeypatch.setattr(tiff_pages, "_WHOLE_BYTES", 0)
    found, info = slices_of(path)
    np.testing.assert_array_equal(found, expected)
    assert info.absent["not_stored"] == 1
    assert any(f"are not stored: read as the fill value {nodata}" in note for note in info.notes)


def test_a_whole_page_may_be_left_out_but_not_every_page(tmp_path):
    path = tmp_path / "a.tif"
    page_by_page(path, tile=(16, 16))
    for page in range(3):
        without(path, range(12), page)
    found, _ = slices_of(path)
    assert not found[:3].any()
    np.testing.assert_array_equal(found[3], PIXELS[3])
    without(path, range(12), 3)
    with pytest.raises(VolumeError, match="none of its 48 strips or tiles stored"):
        open_source(path)


def test_a_tile_with_a_place_and_no_bytes_is_lost_and_not_left_out(tmp_path):
    path = tmp_path / "a.tif"
    page_by_page(path, tile=(16, 16))
    without(path, [1], offset=99)
    with pytest.raises(VolumeError, match="slice 0 lacks some of its strips or tiles"):
        open_source(path)


OME = {"axes": "ZYX", "PhysicalSizeX": 0.024, "PhysicalSizeY": 0.024, "PhysicalSizeZ": 0.05}


@pytest.mark.parametrize(
    ("old", "new", "size", "told"),
    [
        (b"</Pixels>", b"<<ixels >", (None, None, None), "OME metadata ignored: not well-formed"),
        (b"</Image>", b"<Image/>", (None, None, None), "OME metadata ignored: mismatched tag"),
        (b"<Image ", b"<\x00mage ", (None, None, None), "OME metadata ignored"),
        (b'SizeZ="4"', b'SizeZ="x"', (50, 24, 24), "OME metadata do not fit the file (ValueError"),
        (b"DimensionOrder", b"DimensionOrdre", (50, 24, 24), "OME metadata do not fit the file (KeyError"),
        (b'SizeC="1"', b'Size_="1"', (50, 24, 24), "OME metadata do not fit the file (KeyError"),
    ],
)
def test_damaged_ome_metadata_leave_a_plain_tiff(tmp_path, old, new, size, told):
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, PIXELS, metadata=OME, photometric="minisblack")
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))
    found, info = slices_of(path)
    np.testing.assert_array_equal(found, PIXELS)
    assert info.voxel_size_nm == size
    assert any(note.startswith(told) for note in info.notes)


def ome_set(folder, pixels=PIXELS, **how):
    """One OME-TIFF per slice, each with the OME-XML of all, 50 x 24 x 24 nm."""
    folder.mkdir()
    depth, height, width = pixels.shape
    ids = [f"urn:uuid:00000000-0000-0000-0000-{z:012d}" for z in range(depth)]
    parts = "".join(
        f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1"><UUID FileName="z{z}.ome.tif">{one}</UUID></TiffData>'
        for z, one in enumerate(ids)
    )
    for z, image in enumerate(pixels):
        xml = (
            '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="{ids[z]}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" '
            f'SizeX="{width}" SizeY="{height}" SizeZ="{depth}" SizeC="1" SizeT="1" PhysicalSizeX="24" '
            'PhysicalSizeXUnit="nm" PhysicalSizeY="24" PhysicalSizeYUnit="nm" PhysicalSizeZ="50" '
            f'PhysicalSizeZUnit="nm"><Channel ID="Channel:0" SamplesPerPixel="1"/>{parts}</Pixels></Image></OME>'
        )
        tifffile.imwrite(
            folder / f"z{z}.ome.tif", image, description=xml.encode(), metadata=None, photometric="minisblack", **how
        )
    return folder


def test_a_folder_whose_files_are_one_set_is_that_set(tmp_path):
    folder = ome_set(tmp_path / "set")
    (folder / "log.txt").write_text("by a microscope")
    found, info = slices_of(folder)
    np.testing.assert_array_equal(found, PIXELS)
    assert info.voxel_size_nm == (50, 24, 24)
    assert info.path == folder
    assert "one set of OME-TIFFs" in info.format
    assert any("log.txt" in note for note in info.notes)


@pytest.mark.parametrize("name", ["z2.ome.tif", "renamed.tif"])
def test_one_file_of_a_set_alone_is_read_by_itself(tmp_path, name):
    (tmp_path / "alone").mkdir()
    shutil.copy(ome_set(tmp_path / "set") / "z2.ome.tif", tmp_path / "alone" / name)
    for path in (tmp_path / "alone" / name, tmp_path / "alone"):
        found, info = slices_of(path)
        np.testing.assert_array_equal(found, PIXELS[2:3])
        assert info.voxel_size_nm[1:] == (24, 24)
    assert any("its set has 3 other files" in note for note in slices_of(tmp_path / "alone" / name)[1].notes)


@pytest.mark.parametrize("lost", [0, 2])
@pytest.mark.parametrize("whole_folder", [True, False])
def test_slices_of_a_set_whose_file_is_missing_fail_and_the_others_are_done(tmp_path, lost, whole_folder, capsys):
    folder = ome_set(tmp_path / "set")
    (folder / f"z{lost}.ome.tif").unlink()
    path = folder if whole_folder else folder / "z1.ome.tif"
    with open_source(path) as source:
        assert source.shape == PIXELS.shape
        assert list(source.info.damaged) == [lost]
        np.testing.assert_array_equal(source.read(3, EVERYTHING, EVERYTHING), PIXELS[3])
        with pytest.raises(VolumeError, match=rf"slice {lost} .* z{lost}\.ome\.tif|is missing \(z{lost}\.ome\.tif\)"):
            source.read(lost, EVERYTHING, EVERYTHING)
    if lost == 0:  # starting a model takes seconds
        return
    assert main(["infer", str(path), "-o", str(tmp_path / "out.zarr"), "--input-voxel", "ignore"]) == 4
    assert f"z{lost}.ome.tif" in capsys.readouterr().err


def test_a_folder_of_parts_of_two_sets_is_read_file_by_file(tmp_path):
    folder = tmp_path / "both"
    folder.mkdir()
    for number in (1, 2):
        for file in ome_set(tmp_path / f"set{number}", PIXELS[:number]).iterdir():
            shutil.copy(file, folder / f"s{number}_{file.name}")
    found, _ = slices_of(folder)
    np.testing.assert_array_equal(found, PIXELS[[0, 0, 1]])


@pytest.mark.parametrize("how", [{}, {"tile": (16, 16), "compression": "zlib"}, {"rowsperstrip": 16}])
def test_large_pages_of_a_set_are_read_in_parts(tmp_path, monkeypatch, how):
    folder = ome_set(tmp_path / "set", **how)
    monkeypatch.setattr(tiff_pages, "_WHOLE_BYTES", 0)
    with open_source(folder / "z0.ome.tif") as source:
        for z in (3, 0, 1):
            np.testing.assert_array_equal(source.read(z, slice(5, 40), slice(9, 60)), PIXELS[z, 5:40, 9:60])

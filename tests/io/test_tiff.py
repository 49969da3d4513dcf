"""TIFF in and out: every flavour read right, every cut noticed, cross-read by tifffile."""

import os

import numpy as np
import pytest
import tifffile

from emsr_fast.errors import VolumeError
from emsr_fast.io.registry import create_target, open_source
from emsr_fast.io.volume import TargetSpec
from emsr_fast.io.voxels import UNKNOWN

EVERYTHING = slice(None)


def stack(dtype=np.uint16, shape=(4, 20, 30)):
    return np.random.default_rng(0).integers(0, 120, shape).astype(dtype)


def read_all(path):
    with open_source(path) as source:
        return np.stack([source.read(z, EVERYTHING, EVERYTHING) for z in range(source.shape[0])]), source.info


def write_all(path, pixels, voxel_size_nm=UNKNOWN, block=7, **spec):
    """Write ``pixels`` in ragged blocks and in a shuffled order."""
    depth, height, width = pixels.shape
    corners = [(z, y, x) for z in range(depth) for y in range(0, height, block) for x in range(0, width, block)]
    np.random.default_rng(1).shuffle(corners)
    spec = TargetSpec(pixels.shape, pixels.dtype, scale=3, voxel_size_nm=voxel_size_nm, **spec)
    with create_target(path, spec) as target:
        for z, y, x in corners:
            rows, cols = slice(y, min(y + block, height)), slice(x, min(x + block, width))
            target.write(int(z), rows, cols, pixels[z, rows, cols])
        target.commit()


FLAVOURS = {
    "plain": {},
    "deflate": {"compression": "zlib"},
    "lzw with predictor": {"compression": "lzw", "predictor": True},
    "tiled": {"tile": (16, 16), "compression": "zlib"},
    "many strips": {"rowsperstrip": 3},
    "imagej": {"imagej": True, "metadata": {"axes": "ZYX"}},
    "ome": {"ome": True, "metadata": {"axes": "ZYX"}},
    "bigtiff": {"bigtiff": True},
    "big-endian": {"byteorder": ">"},
    "one page entry for all": {"metadata": {"truncate": True, "axes": "ZYX"}},
}


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_every_flavour_is_read_exactly(tmp_path, flavour, dtype):
    options = {"photometric": "minisblack", **FLAVOURS[flavour]}
    if "predictor" in options and dtype == np.float32:
        options["predictor"] = 3
    if options.get("imagej"):
        del options["photometric"]
    pixels = stack(dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options)
    found, info = read_all(tmp_path / "a.tif")
    assert found.dtype == dtype
    assert found.dtype.isnative
    assert (found == pixels).all()
    assert info.shape == (4, 20, 30)
    assert info.voxel_size_nm == UNKNOWN


def test_pages_may_lie_anywhere_in_the_file(tmp_path):
    pixels = stack()
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for image in pixels:
            file.write(image, contiguous=False, compression="zlib")
    found, _ = read_all(tmp_path / "a.tif")
    assert (found == pixels).all()
    with open_source(tmp_path / "a.tif") as source:
        assert (source.read(3, slice(2, 9), slice(5, 6)) == pixels[3, 2:9, 5:6]).all()


def test_white_is_zero_is_inverted(tmp_path):
    pixels = stack(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels[0], photometric="miniswhite")
    found, info = read_all(tmp_path / "a.tif")
    assert (found[0] == 255 - pixels[0]).all()
    assert "inverted" in info.notes[0]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"ome": True, "metadata": {"axes": "ZYX", "PhysicalSizeX": 4.0, "PhysicalSizeXUnit": "nm",
             "PhysicalSizeY": 0.005, "PhysicalSizeZ": 3e-5, "PhysicalSizeZUnit": "mm"}},
            (30.0, 5.0, 4.0),
        ),
        (
            {"ome": True, "metadata": {"axes": "ZYX", "PhysicalSizeX": 1.0, "PhysicalSizeXUnit": "pixel",
             "PhysicalSizeY": 50.0, "PhysicalSizeYUnit": "Å"}},
            (None, 5.0, None),
        ),
        (
            {"imagej": True, "metadata": {"axes": "ZYX", "unit": "um", "spacing": 0.03}, "resolution": (250, 200)},
            (30.0, 5.0, 4.0),
        ),
        ({"imagej": True, "metadata": {"axes": "ZYX", "unit": "micron"}, "resolution": (250, 200)}, (None, 5.0, 4.0)),
        ({"imagej": True, "metadata": {"axes": "ZYX", "unit": "pixel"}, "resolution": (250, 200)}, UNKNOWN),
        ({"imagej": True, "metadata": {"axes": "ZYX", "spacing": 3.0}}, UNKNOWN),
        ({"resolution": (2.5e6, 2e6), "resolutionunit": "CENTIMETER"}, (None, 5.0, 4.0)),
        ({"resolution": (2.54e7 / 4, 2.54e7 / 5), "resolutionunit": "INCH"}, (None, 5.0, 4.0)),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, UNKNOWN),
        ({"resolution": (2.5e6, 2e6), "resolutionunit": "NONE"}, UNKNOWN),
        ({}, UNKNOWN),
    ],
    ids=str,
)  # fmt: skip
def test_voxel_sizes_are_read_in_nm_and_unknown_stays_unknown(tmp_path, options, expected):
    if not options.get("imagej"):
        options = {"photometric": "minisblack", **options}
    tifffile.imwrite(tmp_path / "a.tif", stack(), **options)
    _, info = read_all(tmp_path / "a.tif")
    for found, size in zip(info.voxel_size_nm, expected, strict=True):
        assert (found is None) == (size is None)
        assert found is None or found == pytest.approx(size, rel=1e-6)
    if options.get("resolution") == (72, 72):
        assert "72 dpi" in info.notes[0]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.float32])
@pytest.mark.parametrize("voxel", [UNKNOWN, (30.0, 10.0, 10 / 3), (None, 4.0, 4.0)], ids=str)
def test_our_files_are_read_back_by_tifffile_and_by_us(tmp_path, dtype, voxel):
    pixels = stack(dtype)
    write_all(
        tmp_path / "a.ome.tif", pixels, voxel, provenance={"software": "emsr_fast 0", "model": "m", "a": {"b": 1}}
    )
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.ome.tif"]
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        assert file.is_ome
        assert not file.is_bigtiff
        assert file.series[0].axes == "ZYX"
        assert (file.asarray() == pixels).all()
        assert file.asarray().dtype == dtype
        assert file.pages[0].tags["Software"].value == "emsr_fast 0"
        metadata = file.ome_metadata
        density = file.pages[0].tags["XResolution"].value
        assert file.pages[0].tags["ResolutionUnit"].value == (1 if voxel == UNKNOWN else 3)
        assert voxel == UNKNOWN or density[0] / density[1] == pytest.approx(1e7 / voxel[2])
    assert '<M K="model">m</M><M K="a.b">1</M>' in metadata
    assert ("PhysicalSizeX" in metadata) == (voxel != UNKNOWN)
    found, info = read_all(tmp_path / "a.ome.tif")
    assert (found == pixels).all()
    assert info.voxel_size_nm == voxel


def test_one_slice_of_one_pixel_is_a_volume_too(tmp_path):
    write_all(tmp_path / "a.tif", stack(shape=(1, 1, 1)))
    found, info = read_all(tmp_path / "a.tif")
    assert info.shape == (1, 1, 1)
    assert (found == stack(shape=(1, 1, 1))).all()


def test_more_than_4_gigabytes_become_bigtiff(tmp_path):
    # a sparse file: only the blocks written take space
    shape, block = (4400, 1000, 1000), np.full((5, 1000), 9, np.uint8)
    with create_target(tmp_path / "big.tif", TargetSpec(shape, np.dtype("u1"), scale=3)) as target:
        target.write(4399, slice(995, 1000), slice(0, 1000), block)
        target.commit()
    with tifffile.TiffFile(tmp_path / "big.tif") as file:
        assert file.is_bigtiff
        assert (file.pages[4399].asarray()[995:] == block).all()
    with open_source(tmp_path / "big.tif") as source:
        assert source.shape == shape
        assert (source.read(4399, slice(995, 1000), EVERYTHING) == block).all()
        assert not source.read(4398, EVERYTHING, EVERYTHING).any()


def test_every_cut_through_a_real_file_is_noticed(tmp_path, examples):
    whole = (examples / "flyem_fibsem_10nm_48x192x192.tif").read_bytes()
    rng = np.random.default_rng(0)
    for length in (1, 4, 7, 8, 9, 100, 285, 288, 26276, len(whole) - 1, *rng.integers(1, len(whole), 40)):
        (tmp_path / "cut.tif").write_bytes(whole[:length])
        with pytest.raises(VolumeError, match=r"cut\.tif") as raised:
            open_source(tmp_path / "cut.tif")
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("flavour", ["plain", "imagej", "ome", "bigtiff", "one page entry for all", "many strips"])
def test_every_cut_through_every_flavour_is_noticed(tmp_path, flavour):
    pixels = stack(shape=(3, 8, 9))
    options = {"metadata": {"axes": "ZYX"}, **FLAVOURS[flavour]}
    if not options.get("imagej"):
        options["photometric"] = "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options)
    whole = (tmp_path / "a.tif").read_bytes()
    for length in range(1, len(whole), 3):
        (tmp_path / "cut.tif").write_bytes(whole[:length])
        try:
            found, _ = read_all(tmp_path / "cut.tif")
        except VolumeError:
            continue
        # what lies behind the last pixel may be lost, never a pixel
        assert found.shape == pixels.shape, length
        assert (found == pixels).all(), length


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: tifffile.imwrite(f, np.eye(9, 27, dtype="u1").reshape(9, 9, 3), photometric="rgb"), "colour image"),
        (
            lambda f: tifffile.imwrite(f, np.arange(243, dtype="u1").reshape(3, 9, 9), photometric="rgb"),
            "photometric='minisblack'",
        ),
        (
            lambda f: tifffile.imwrite(
                f, np.zeros((9, 9), "u1"), photometric="palette", colormap=np.zeros((3, 256), "u2")
            ),
            "colour palette",
        ),
        (lambda f: tifffile.imwrite(f, np.zeros((9, 9), "c8")), "complex numbers .complex64."),
        (lambda f: tifffile.imwrite(f, np.zeros((9, 9), "u8")), "dtype uint64, .* convert it to uint16 or float32"),
        (
            lambda f: tifffile.imwrite(
                f, np.zeros((2, 3, 9, 9), "u1"), photometric="minisblack", metadata={"axes": "TZYX"}
            ),
            "axes T=2, Z=3, Y=9, X=9; expected one stack",
        ),
        (
            lambda f: tifffile.imwrite(
                f, np.zeros((2, 9, 9), "u1"), photometric="minisblack", metadata={"axes": "CYX"}
            ),
            "2 channels",
        ),
        (
            lambda f: tifffile.imwrite(f, np.zeros((16, 16, 16), "u1"), volumetric=True, tile=(16, 16, 16)),
            "1 page for 16 slices",
        ),
    ],
)
def test_what_is_not_one_grey_stack_is_refused_with_its_reason(tmp_path, make, message):
    make(tmp_path / "a.tif")
    with pytest.raises(VolumeError, match=message):
        open_source(tmp_path / "a.tif")


def test_pages_of_different_sizes_are_to_be_chosen_from(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(np.zeros((9, 9), "u1"))
        file.write(np.zeros((9, 8), "u1"))
    with pytest.raises(VolumeError, match=r"2 images; name one with `key`: 0 \(9 x 9 uint8\), 1 \(9 x 8 uint8\)"):
        open_source(tmp_path / "a.tif")
    with open_source(tmp_path / "a.tif", key="1") as source:
        assert source.shape == (1, 9, 8)


@pytest.mark.filterwarnings("ignore:.*zero-size:UserWarning")
def test_an_empty_stack_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((0, 20, 30), np.uint8))
    with pytest.raises(VolumeError, match="no pixels"):
        open_source(tmp_path / "a.tif")


def test_a_page_that_does_not_decode_is_named(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", stack(), compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        offset, count = file.pages[2].dataoffsets[0], file.pages[2].databytecounts[0]
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[offset : offset + count] = bytes(count)
    (tmp_path / "a.tif").write_bytes(data)
    with open_source(tmp_path / "a.tif") as source:
        source.read(1, EVERYTHING, EVERYTHING)
        with pytest.raises(VolumeError, match=r"slice 2 of .*a\.tif cannot be read"):
            source.read(2, EVERYTHING, EVERYTHING)


def test_a_write_that_takes_only_a_part_goes_on(tmp_path, monkeypatch):
    # a nearly full disk does this, and Linux does with more than 2 GB at once
    whole_write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: whole_write(descriptor, data[:5], offset))
    pixels = stack()
    write_all(tmp_path / "a.tif", pixels)
    assert (tifffile.imread(tmp_path / "a.tif") == pixels).all()


def test_a_block_that_does_not_fit_is_a_fault_of_the_caller(tmp_path):
    with create_target(tmp_path / "a.tif", TargetSpec((1, 9, 9), np.dtype("u1"), scale=3)) as target:
        for rows, block in ((slice(0, 3), np.zeros((3, 9), "u2")), (slice(8, 11), np.zeros((3, 9), "u1"))):
            with pytest.raises(ValueError, match="block"):
                target.write(0, rows, slice(0, 9), block)
    assert not list(tmp_path.iterdir())

"""Grey images that are stored as colours, in TIFF and PNG: palettes that are ramps, equal channels, constant alpha."""

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from emsr_fast.errors import VolumeError
from emsr_fast.io.readers.parts.greys import grey_ramp, looked_up
from emsr_fast.io.readers.tiff import pages
from emsr_fast.io.registry import open_source

ALL = slice(None)
GREY = np.random.default_rng(0).integers(0, 256, (3, 40, 36)).astype(np.uint8)
INDEX = np.arange(256, dtype=np.uint16)
RAMP = np.tile(INDEX, (3, 1))


def marked(palette, *entries, value=(255, 0, 0)):
    palette = palette.copy()
    for entry in entries:
        palette[:, entry] = value
    return palette


@pytest.mark.parametrize(
    ("palette", "greys", "strays"),
    [
        (RAMP * 256, INDEX, 0),
        (RAMP * 257, INDEX, 0),
        (RAMP, INDEX, 0),
        (RAMP.astype(np.uint8), INDEX, 0),
        (RAMP[:, ::-1] * 257, INDEX[::-1], 0),
        # marks are drawn with a few entries; the greys between stand for them
        (marked(RAMP * 256, 3, 9, 255, value=(65280, 0, 0)), INDEX, 3),
        (marked(RAMP * 256, 9, value=(0, 0, 0)), INDEX, 1),
        (marked(RAMP[:, ::-1] * 257, 9, value=(65535, 0, 0)), INDEX[::-1], 1),
        (RAMP * 129, INDEX * 129, 0),
        (np.tile(np.array([0, 65535]), (3, 1)), [0, 255], 0),
    ],
)
def test_a_palette_of_greys_is_a_ramp(palette, greys, strays):
    found, count = grey_ramp(palette.astype(np.uint8 if palette.dtype == np.uint8 else np.uint16))
    np.testing.assert_array_equal(found, greys)
    assert count == strays
    assert found.dtype == (np.uint16 if max(greys) > 255 else np.uint8)


@pytest.mark.parametrize(
    "palette",
    [
        RAMP * 0,
        RAMP * np.array([[256], [256], [255]]),
        np.random.default_rng(1).permutation(RAMP.T).T,
        marked(RAMP * 256, *range(0, 66, 2), value=(9, 8, 7)),
        RAMP[:, :0],
        RAMP[:2],
    ],
)
def test_a_palette_of_colours_is_none(palette):
    assert grey_ramp(palette.astype(np.uint16)) is None


def test_a_palette_of_16_bits_is_read_in_16_bits():
    values = np.linspace(0, 65535, 65536).astype(np.uint16)
    greys, strays = grey_ramp(np.tile(values, (3, 1)))
    assert (greys.dtype, strays) == (np.uint16, 0)
    np.testing.assert_array_equal(greys, values)


def palette_tiff(path, image, palette, **options):
    tifffile.imwrite(path, image, photometric="palette", colormap=palette.astype(np.uint16), **options)


def test_a_tiff_with_a_ramp_is_read_as_its_greys(tmp_path):
    palette_tiff(tmp_path / "a.tif", GREY[0], RAMP * 256)
    palette_tiff(tmp_path / "marks.tif", GREY[0], marked(RAMP * 256, 250, 251, value=(65280, 0, 0)))
    palette_tiff(tmp_path / "falling.tif", GREY[0], RAMP[:, ::-1] * 257)
    palette_tiff(tmp_path / "deep.tif", GREY[0], RAMP * 129)
    for name, expected, note in (
        ("a.tif", GREY[0], "ramp of grey: read as these greys"),
        ("marks.tif", GREY[0], "except 2 entries, such as marks"),
        ("falling.tif", 255 - GREY[0], "ramp of grey"),
        ("deep.tif", GREY[0].astype(np.uint16) * 129, "ramp of grey"),
    ):
        with open_source(tmp_path / name) as source:
            assert source.dtype == expected.dtype
            assert sum(note in said for said in source.info.notes) == 1
            np.testing.assert_array_equal(source.read(0, slice(3, 20), slice(5, 30)), expected[3:20, 5:30])


def test_a_palette_of_1_bit(tmp_path):
    bits = GREY[0] > 127
    # tifffile writes palettes of 8 and 16 bits only
    tifffile.imwrite(tmp_path / "a.tif", bits, photometric="minisblack", extratags=[
        (320, "H", 6, (65535, 0) * 3, True)
    ])  # fmt: skip
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        file.pages[0].tags["PhotometricInterpretation"].overwrite(3)
    with open_source(tmp_path / "a.tif") as source:
        assert source.dtype == np.uint8
        np.testing.assert_array_equal(source.read(0, ALL, ALL), np.where(bits, 0, 255))


def test_pages_with_different_palettes_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for palette in (RAMP * 256, RAMP[:, ::-1] * 256):
            file.write(GREY[0], photometric="palette", colormap=palette, contiguous=False)
    with pytest.raises(VolumeError, match="different palettes"):
        open_source(tmp_path / "a.tif")


def test_a_tiff_with_a_palette_of_colours_stays_refused(tmp_path):
    palette_tiff(tmp_path / "a.tif", GREY[0], RAMP * np.array([[256], [256], [255]]))
    with pytest.raises(VolumeError, match="holds a colour palette"):
        open_source(tmp_path / "a.tif")


CHANNELS = {
    "rgb": (3, {"photometric": "rgb"}),
    "rgb, in planes": (3, {"photometric": "rgb", "planarconfig": "separate"}),
    "rgba": (4, {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    "grey and alpha": (2, {"photometric": "minisblack", "extrasamples": ["unassalpha"], "planarconfig": "contig"}),
}


def with_channels(stack, kind, alpha=255):
    """Return (Z, Y, X, samples), or with the samples before Y where they lie in planes."""
    samples, options = CHANNELS[kind]
    stored = np.stack([stack] * samples, axis=-1)
    if samples in (2, 4):
        stored[..., -1] = alpha
    return np.ascontiguousarray(np.moveaxis(stored, -1, 1)) if "planes" in kind else stored, options


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("storage", [{}, {"tile": (16, 16)}, {"rowsperstrip": 7, "compression": "zlib"}])
@pytest.mark.parametrize("kind", CHANNELS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_equal_channels_are_grey(tmp_path, monkeypatch, kind, storage, large, dtype):
    stack = GREY.astype(dtype) * (200 if dtype == np.uint16 else 1)
    stored, options = with_channels(stack, kind)
    tifffile.imwrite(tmp_path / "a.tif", stored, metadata={"axes": "ZSYX" if "planes" in kind else "ZYXS"}, **options,
                     **storage)  # fmt: skip
    if large:  # pages are read in parts
        monkeypatch.setattr(pages, "_WHOLE_BYTES", 100)
        if "planes" in kind:
            with pytest.raises(VolumeError, match="stores its channels one by one"):
                open_source(tmp_path / "a.tif")
            return
    with open_source(tmp_path / "a.tif") as source:
        assert (source.shape, source.dtype) == (stack.shape, dtype)
        assert any(note.startswith("stored as ") and note.endswith(": read as grey") for note in source.info.notes)
        for z in range(3):
            np.testing.assert_array_equal(source.read(z, slice(5, 33), slice(2, 35)), stack[z, 5:33, 2:35])


def test_a_later_slice_in_colour_fails_and_the_first_one_refuses_the_file(tmp_path):
    stored, options = with_channels(GREY, "rgb")
    for z in (0, 2):
        coloured = stored.copy()
        coloured[z, 7, 8] = 1, 2, 3
        tifffile.imwrite(tmp_path / f"{z}.tif", coloured, **options)
    with pytest.raises(VolumeError, match=r"slice 0 of .* is a colour image: .* differ in 1 pixel"):
        open_source(tmp_path / "0.tif")
    with open_source(tmp_path / "2.tif") as source:
        np.testing.assert_array_equal(source.read(1, ALL, ALL), GREY[1])
        with pytest.raises(VolumeError, match=r"slice 2 of .* is a colour image"):
            source.read(2, ALL, ALL)


def test_alpha_that_varies_is_refused(tmp_path):
    stored, options = with_channels(GREY, "rgba")
    stored[1, ..., -1] = 7
    tifffile.imwrite(tmp_path / "a.tif", stored, **options)
    with open_source(tmp_path / "a.tif") as source, pytest.raises(VolumeError, match="alpha channel that is not the"):
        source.read(1, ALL, ALL)
    stored[0, 0, 0, -1] = 7
    tifffile.imwrite(tmp_path / "a.tif", stored, **options)
    with pytest.raises(VolumeError, match="alpha channel that is not the same everywhere"):
        open_source(tmp_path / "a.tif")


def png(path, kind, grey, **options):
    image = Image.fromarray(grey)
    if kind == "P":
        image = image.convert("P")
    elif kind == "P, falling":
        image.putpalette(np.repeat(255 - INDEX.astype(np.uint8), 3).tobytes())
    elif kind == "P, marks":
        image.putpalette(marked(RAMP, 255).astype(np.uint8).T.tobytes())
    else:
        image = image.convert(kind)
    image.save(path, **options)


@pytest.mark.parametrize(
    ("kind", "note"),
    [
        ("P", "ramp of grey"),
        ("P, falling", "ramp of grey"),
        ("P, marks", "except 1 entry"),
        ("RGB", "stored as RGB with equal channels"),
        ("RGBA", "stored as RGBA with equal channels"),
        ("LA", "stored as LA with equal channels"),
    ],
)
def test_png_files_that_are_grey(tmp_path, kind, note):
    for z in range(3):
        png(tmp_path / f"{z}.png", kind, GREY[z])
    for path in (tmp_path, tmp_path / "0.png"):
        with open_source(path) as source:
            assert source.dtype == np.uint8
            assert sum(note in said for said in source.info.notes) == 1
            for z in range(source.shape[0]):
                expected = 255 - GREY[z] if "falling" in kind else GREY[z]
                np.testing.assert_array_equal(source.read(z, ALL, ALL), expected)


def test_png_files_in_colour_fail(tmp_path):
    for z in range(3):
        png(tmp_path / f"{z}.png", "RGB", GREY[z])
    red = np.stack([GREY[2], GREY[2] // 2, GREY[2]], axis=-1)
    Image.fromarray(red).save(tmp_path / "2.png")
    with open_source(tmp_path) as source:
        np.testing.assert_array_equal(source.read(1, ALL, ALL), GREY[1])
        with pytest.raises(VolumeError, match=r"2\.png is a colour image"):
            source.read(2, ALL, ALL)
    Image.fromarray(red).save(tmp_path / "0.png")
    with pytest.raises(VolumeError, match=r"0\.png is a colour image"):
        open_source(tmp_path)


def test_png_with_transparent_parts_or_16_bits_of_colour_are_refused(tmp_path):
    png(tmp_path / "p.png", "P", GREY[0], transparency=5)
    with open_source(tmp_path / "p.png") as source, pytest.raises(VolumeError, match="alpha channel"):
        source.read(0, ALL, ALL)
    Image.fromarray(np.dstack((GREY[0], GREY[1]))).save(tmp_path / "la.png")
    with pytest.raises(VolumeError, match="alpha channel"):
        open_source(tmp_path / "la.png")
    write_png_of_16_bits(tmp_path / "deep.png")
    with pytest.raises(VolumeError, match="colour image of 16 bits"):
        open_source(tmp_path / "deep.png")


def write_png_of_16_bits(path):
    """Write RGB of 16 bits, which Pillow reads and does not write."""

    def part(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    lines = b"".join(b"\x00" + bytes(4 * 6) for _ in range(4))
    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(lines)) + part(b"IEND", b"")
    )


def test_a_palette_takes_no_more_memory_than_the_greys():
    block = np.random.default_rng(0).integers(0, 256, (1500, 2000)).astype(np.uint8)
    greys = np.arange(256, dtype=np.uint8)[::-1]
    tracemalloc.start()
    try:
        found = looked_up(greys, block)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(found, 255 - block)
    # and a part of 262,144 pixels with 8 bytes each, once as numbers and once as places
    assert peak < block.nbytes + 2 * 8 * 2**18 + 2**16

"""What a header claims is compared with the file before memory is taken for it."""

import io
import itertools
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from emsr_fast.cli import main
from emsr_fast.errors import VolumeError
from emsr_fast.io.registry import open_source
from reading import read_apart


@pytest.mark.parametrize(
    "text",
    [
        '{"shape": [400000000, 48, 56]}',
        '{"shape": [400000000, 48, 56], "truncated": true}',
        '{"shape": [400000000, 48, 56], "axes": "ZYX"}',
        '{"shape": [4, 100000000, 48, 56], "axes": "TZYX"}',
    ],
)
def test_a_tiff_that_claims_more_slices_than_it_can_hold_takes_no_memory(tmp_path, text):
    pixels = np.random.default_rng(0).integers(0, 255, (48, 56)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, description=text, metadata=None)
    said, peak = read_apart(tmp_path / "a.tif")
    assert said.startswith("refused")
    assert "claims 400000000 slices, the file has" in said
    assert 0 < peak < 300


EVERYTHING = slice(None)
PIXELS = np.random.default_rng(1).integers(1, 255, (13, 21)).astype(np.uint8)
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a pixel, by the colour type of PNG
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png(path, stream, shape, depth=8, colour=0, interlaced=0, pieces=1):
    """Write a PNG whose compressed pixels are those of ``stream``."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packed = zlib.compress(stream)
    cuts = [len(packed) * number // pieces for number in range(pieces + 1)]
    palette = chunk(b"PLTE", bytes(np.repeat(np.arange(2**depth, dtype=np.uint8), 3))) if colour == 3 else b""
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", shape[1], shape[0], depth, colour, 0, 0, interlaced))
        + palette
        + b"".join(chunk(b"IDAT", packed[start:end]) for start, end in itertools.pairwise(cuts))
        + chunk(b"IEND", b"")
    )


def rows_of(pixels, interlaced=0):
    """Return the bytes of an image of one byte a pixel as PNG stores them, unfiltered."""
    parts = [pixels[y::step_y, x::step_x] for x, y, step_x, step_y in ADAM7] if interlaced else [pixels]
    return b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)


@pytest.mark.parametrize("interlaced", [0, 1])
@pytest.mark.parametrize("shape", [(13, 21), (1, 1), (1, 9), (9, 1), (3, 2), (16, 8)])
def test_a_png_with_the_pixels_that_it_states_is_read(tmp_path, shape, interlaced):
    pixels = PIXELS.ravel()[: shape[0] * shape[1]].reshape(shape)
    png(tmp_path / "a.png", rows_of(pixels, interlaced), shape, interlaced=interlaced, pieces=3)
    with open_source(tmp_path / "a.png") as source:
        np.testing.assert_array_equal(source.read(0, EVERYTHING, EVERYTHING), pixels)


@pytest.mark.parametrize(
    ("depth", "colour"), [(1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (8, 2), (1, 3), (8, 3), (8, 4), (8, 6)]
)
def test_pngs_of_all_kinds_of_grey_are_read(tmp_path, depth, colour):
    row = b"\0" + bytes((21 * depth * SAMPLES[colour] + 7) // 8)
    png(tmp_path / "a.png", row * 13, (13, 21), depth, colour)
    with open_source(tmp_path / "a.png") as source:
        assert not source.read(0, EVERYTHING, EVERYTHING).any()
    png(tmp_path / "a.png", (row * 13)[:-1], (13, 21), depth, colour)
    with (
        pytest.raises(VolumeError, match=r"has fewer pixels than its header states|image file is truncated"),
        open_source(tmp_path / "a.png") as source,
    ):
        source.read(0, EVERYTHING, EVERYTHING)


@pytest.mark.parametrize("interlaced", [0, 1])
@pytest.mark.parametrize("change", ["without its end", "without the last byte", "with a byte more", "with much more"])
def test_a_png_with_fewer_or_more_pixels_than_it_states_is_a_slice_that_fails(tmp_path, capsys, change, interlaced):
    stream = rows_of(PIXELS, interlaced)
    changed = {
        "without its end": stream[:100],
        "without the last byte": stream[:-1],
        "with a byte more": stream + b"\0",
        "with much more": stream + bytes(2**26),
    }[change]
    png(tmp_path / "1.png", rows_of(PIXELS), PIXELS.shape)
    png(tmp_path / "2.png", changed, PIXELS.shape, interlaced=interlaced, pieces=2)
    with open_source(tmp_path) as source:
        np.testing.assert_array_equal(source.read(0, EVERYTHING, EVERYTHING), PIXELS)
        with pytest.raises(VolumeError, match=r"2\.png is damaged: it has (fewer|more) pixels than its header states"):
            source.read(1, EVERYTHING, EVERYTHING)


def test_an_image_whose_pixels_are_missing_is_no_output_with_black_rows(tmp_path, capsys):
    png(tmp_path / "a.png", rows_of(PIXELS)[:100], PIXELS.shape)
    assert main(["infer", str(tmp_path / "a.png"), "-o", str(tmp_path / "o.zarr"), "--input-voxel", "ignore"]) == 3
    assert "is damaged: it has fewer pixels than its header states" in capsys.readouterr().err
    assert not (tmp_path / "o.zarr").exists()


@pytest.mark.parametrize("depth", [1, 8, 16])
def test_a_png_that_claims_more_pixels_than_its_bytes_can_be_is_refused(tmp_path, depth):
    png(tmp_path / "a.png", bytes(100_000), (2**31 - 1, 2**31 - 1), depth)
    said, peak = read_apart(tmp_path / "a.png")
    assert said.startswith("refused")
    assert "claims 2147483647 x 2147483647 pixels, the file has" in said
    assert 0 < peak < 300


def test_the_best_compressed_png_is_no_claim(tmp_path):
    png(tmp_path / "a.png", bytes(3001 * 3000), (3000, 3000))
    with open_source(tmp_path / "a.png") as source:
        assert not source.read(0, EVERYTHING, EVERYTHING).any()


def test_a_jpeg_that_claims_more_pixels_than_its_bytes_can_be_is_refused(tmp_path):
    packed = io.BytesIO()
    Image.fromarray(PIXELS).save(packed, "JPEG")
    content = bytearray(packed.getvalue())
    at = content.index(b"\xff\xc0") + 5  # the height and width of the frame
    content[at : at + 4] = struct.pack(">HH", 65000, 65000)
    (tmp_path / "a.jpg").write_bytes(content)
    said, peak = read_apart(tmp_path / "a.jpg")
    assert said.startswith("refused")
    assert "claims 65000 x 65000 pixels, the file has" in said
    assert 0 < peak < 300


def test_the_best_compressed_jpeg_is_no_claim(tmp_path):
    Image.fromarray(np.zeros((9000, 9000), np.uint8)).save(
        tmp_path / "a.jpg", progressive=True, optimize=True, quality=1
    )
    with open_source(tmp_path / "a.jpg") as source:
        assert source.shape == (1, 9000, 9000)

"""Chunks that claim, or become, gigabytes: decompressed to no more than a chunk of the array has."""

import bz2
import gzip
import json
import lzma

import google_crc32c
import numcodecs
import numpy as np
import pytest
import zarr

from emsr_fast.errors import VolumeError
from emsr_fast.io.registry import open_source
from reading import read_apart

PIXELS = np.random.default_rng(0).integers(1, 255, (4, 64, 64)).astype(np.uint8)
EXPANDED = 2**29  # bytes
CODECS = {
    2: {
        "zstd": numcodecs.Zstd(3), "zstd, checksum": numcodecs.Zstd(3, checksum=True), "gzip": numcodecs.GZip(),
        "zlib": numcodecs.Zlib(), "bz2": numcodecs.BZ2(), "lz4": numcodecs.LZ4(), "blosc": numcodecs.Blosc("lz4hc"),
        "lzma": numcodecs.LZMA(), "lzma, raw": numcodecs.LZMA(lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2}]),
        "none": None,
    },
    3: {
        "zstd": zarr.codecs.ZstdCodec(), "zstd, checksum": zarr.codecs.ZstdCodec(checksum=True),
        "gzip": zarr.codecs.GzipCodec(), "blosc": zarr.codecs.BloscCodec(cname="zstd"), "none": None,
        "two": (zarr.codecs.BloscCodec(), zarr.codecs.ZstdCodec()),
    },
}  # fmt: skip
ALL = [
    (zarr_format, name, shards)
    for zarr_format, codecs in CODECS.items()
    for name in codecs
    for shards in (None, (4, 64, 64))
    if zarr_format == 3 or shards is None
]


@pytest.mark.parametrize(("zarr_format", "name", "shards"), ALL)
def test_chunks_of_every_codec_are_read(tmp_path, zarr_format, name, shards):
    zarr.create_array(
        tmp_path / "a.zarr", data=PIXELS, chunks=(2, 64, 64), shards=shards, zarr_format=zarr_format,
        compressors=CODECS[zarr_format][name],
    )  # fmt: skip
    with open_source(tmp_path / "a.zarr") as source:
        for z in range(4):
            np.testing.assert_array_equal(source.read(z, slice(0, 64), slice(0, 64)), PIXELS[z])


@pytest.mark.parametrize(("name", "pack"), [("gzip", gzip.compress), ("bz2", bz2.compress), ("lzma", lzma.compress)])
def test_a_chunk_may_be_several_streams(tmp_path, name, pack):
    zarr.create_array(tmp_path / "a.zarr", data=PIXELS, chunks=(4, 64, 64), zarr_format=2, compressors=CODECS[2][name])
    content = PIXELS.tobytes()
    (tmp_path / "a.zarr" / "0.0.0").write_bytes(pack(content[:5000]) + pack(content[5000:]))
    with open_source(tmp_path / "a.zarr") as source:
        np.testing.assert_array_equal(source.read(3, slice(0, 64), slice(0, 64)), PIXELS[3])


def test_chunks_behind_a_filter_that_stores_wider_numbers_are_read(tmp_path):
    zarr.create_array(
        tmp_path / "a.zarr", data=PIXELS, chunks=(2, 64, 64), zarr_format=2, compressors=numcodecs.Zstd(3),
        filters=[numcodecs.AsType("f8", "u1")],
    )  # fmt: skip
    with open_source(tmp_path / "a.zarr") as source:
        np.testing.assert_array_equal(source.read(3, slice(0, 64), slice(0, 64)), PIXELS[3])


BOMBS = {
    "zstd": lambda: numcodecs.Zstd(3).encode(bytes(EXPANDED)),
    "gzip": lambda: gzip.compress(bytes(EXPANDED)),
    "bz2": lambda: bz2.compress(bytes(EXPANDED)),
    "lzma": lambda: lzma.compress(bytes(EXPANDED), preset=0),
    "lz4": lambda: numcodecs.LZ4().encode(bytes(EXPANDED)),
    "blosc": lambda: numcodecs.Blosc("zstd", 3).encode(np.zeros(EXPANDED, np.uint8)),
}


@pytest.mark.parametrize(
    ("zarr_format", "name"),
    [(2, "zstd"), (2, "gzip"), (2, "bz2"), (2, "lzma"), (2, "lz4"), (2, "blosc"), (3, "zstd"), (3, "gzip")],
)
def test_a_chunk_that_becomes_half_a_gigabyte_takes_no_memory(tmp_path, zarr_format, name):
    path = tmp_path / "a.zarr"
    codec = CODECS[zarr_format][name]
    zarr.create_array(path, data=PIXELS, chunks=(4, 64, 64), zarr_format=zarr_format, compressors=codec)
    (path / ("0.0.0" if zarr_format == 2 else "c/0/0/0")).write_bytes(BOMBS[name]())
    check_refused(path)


def test_a_chunk_of_a_shard_that_becomes_half_a_gigabyte_takes_no_memory(tmp_path):
    path, codec = tmp_path / "a.zarr", CODECS[3]["zstd"]
    zarr.create_array(path, data=PIXELS, chunks=(2, 64, 64), shards=(4, 64, 64), compressors=codec)
    first, second = numcodecs.Zstd(3).encode(PIXELS[:2].tobytes()), BOMBS["zstd"]()
    index = np.array([0, len(first), len(first), len(second)], "<u8").tobytes()
    checksum = google_crc32c.value(index).to_bytes(4, "little")
    (path / "c/0/0/0").write_bytes(first + second + index + checksum)
    check_refused(path)


def check_refused(path):
    said, peak = read_apart(path)
    assert said.startswith("refused slice")
    assert "a chunk" in said
    assert 0 < peak < 300


@pytest.mark.parametrize(
    ("chunks", "said"),
    [
        ([0, 64, 64], "chunks are 0 x 64 x 64 of uint8, which hold nothing; check"),
        ([1, 1, 2**30 + 1], r"\(1,073,741,825 bytes each\); up to 1,073,741,824 can be read"),
    ],
)
def test_chunks_of_no_size_and_too_large_ones_are_told_apart(tmp_path, chunks, said):
    zarr.create_array(tmp_path / "a.zarr", data=PIXELS, chunks=(4, 64, 64), zarr_format=2)
    described = json.loads((tmp_path / "a.zarr" / ".zarray").read_text())
    (tmp_path / "a.zarr" / ".zarray").write_text(json.dumps(described | {"chunks": chunks}))
    with pytest.raises(VolumeError, match=said):
        open_source(tmp_path / "a.zarr")


@pytest.mark.parametrize("part", ["zarr.json", "c/0/0/0"])
def test_a_part_larger_than_it_can_be_is_refused(tmp_path, part):
    zarr.create_array(tmp_path / "a.zarr", data=PIXELS, chunks=(4, 64, 64))
    with (tmp_path / "a.zarr" / part).open("wb") as file:
        file.truncate(2**36)  # a sparse file
    said, peak = read_apart(tmp_path / "a.zarr")
    assert said.startswith("refused")
    assert "has 68719476736 bytes" in said
    assert 0 < peak < 300


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("text", "reason"),
    [("[" * 100_000, "values are nested too deep"), ('{"a": ' + "9" * 5000 + "}", "a number has thousands of digits")],
)
def test_metadata_that_python_cannot_hold_are_refused_in_plain_words(tmp_path, zarr_format, text, reason):
    zarr.create_array(tmp_path / "a.zarr", data=PIXELS, zarr_format=zarr_format)
    (tmp_path / "a.zarr" / (".zattrs" if zarr_format == 2 else "zarr.json")).write_text(text)
    with pytest.raises(VolumeError, match=f"in its metadata {reason}; check how it was written"):
        open_source(tmp_path / "a.zarr")

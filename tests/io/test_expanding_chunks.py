"""Strips and chunks that become half a gigabyte, in other formats than Zarr: no more is decompressed than fits."""

import gzip
import json
import struct
import zlib

import numpy as np
import pytest
import tifffile

from reading import read_apart

PIXELS = np.random.default_rng(0).integers(1, 255, (4, 64, 64)).astype(np.uint8)
EXPANDED = bytes(2**29)


def tiff(path):
    tifffile.imwrite(path, PIXELS, photometric="minisblack", compression="zlib", rowsperstrip=64)
    with tifffile.TiffFile(path) as file:
        order = file.byteorder
        places = [file.pages[0].tags[name].valueoffset for name in ("StripOffsets", "StripByteCounts")]
    strip = zlib.compress(EXPANDED)
    content = bytearray(path.read_bytes())
    for place, value in zip(places, (len(content), len(strip)), strict=True):
        content[place : place + 4] = struct.pack(order + "I", value)
    path.write_bytes(content + strip)


def n5(path):
    (path / "0" / "0").mkdir(parents=True)
    described = {"dimensions": [64, 64, 4], "blockSize": [64, 64, 2], "dataType": "uint8", "axes": ["x", "y", "z"]}
    (path / "attributes.json").write_text(json.dumps(described | {"compression": {"type": "gzip"}}))
    header = struct.pack(">HHIII", 0, 3, 64, 64, 2)
    for number, content in enumerate((EXPANDED, PIXELS[2:].tobytes())):
        (path / "0" / "0" / str(number)).write_bytes(header + gzip.compress(content))


def precomputed(path):
    (path / "8").mkdir(parents=True)
    scale = {"key": "8", "size": [64, 64, 4], "resolution": [8, 8, 8], "chunk_sizes": [[64, 64, 2]], "encoding": "raw"}
    described = {"type": "image", "data_type": "uint8", "num_channels": 1, "scales": [scale]}
    (path / "info").write_text(json.dumps({"@type": "neuroglancer_multiscale_volume", **described}))
    for first, content in ((0, EXPANDED), (2, PIXELS[2:].tobytes())):
        (path / "8" / f"0-64_0-64_{first}-{first + 2}.gz").write_bytes(gzip.compress(content))


@pytest.mark.parametrize(("make", "name"), [(tiff, "a.tif"), (n5, "a.n5"), (precomputed, "a.precomputed")])
def test_what_becomes_half_a_gigabyte_takes_no_memory(tmp_path, make, name):
    make(tmp_path / name)
    said, peak = read_apart(tmp_path / name)
    assert said.startswith("refused"), said
    assert 0 < peak < 300

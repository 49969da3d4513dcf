"""OME-Zarr 0.4 out, for older readers: opened by libraries that share no code with what wrote it."""

import json
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import zarr

from emsr_fast.cli import main
from emsr_fast.io.registry import open_source


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """What ``infer --ome-zarr 0.4`` makes of two slices."""
    stack = Path(__file__).parents[2] / "examples" / "data" / "flyem_fibsem_10nm_48x192x192.tif"
    path = tmp_path_factory.mktemp("old") / "out.ome.zarr"
    arguments = ["infer", str(stack), "-o", str(path), "--ome-zarr", "0.4", "--roi", "0,0,0:2,40,48"]
    assert main([*arguments, "--input-voxel", "ignore"]) == 0
    return path


@pytest.fixture(scope="module")
def pixels(output):
    with open_source(output) as source:
        return np.stack([source.read(z, slice(None), slice(None)) for z in range(2)])


def test_the_metadata_have_only_keys_that_every_reader_knows(output):
    described = json.loads((output / "0" / ".zarray").read_text())
    assert described["compressor"] == {"id": "zstd", "level": 3}
    assert described["filters"] is None


def test_zarr_python_reads_it(output, pixels):
    np.testing.assert_array_equal(zarr.open_array(output / "0", mode="r")[:], pixels)


def test_tensorstore_reads_it(output, pixels):
    tensorstore = pytest.importorskip("tensorstore")
    where = {"driver": "file", "path": f"{output / '0'}/"}
    array = tensorstore.open({"driver": "zarr", "kvstore": where}, open=True, read=True).result()
    np.testing.assert_array_equal(array.read().result(), pixels)


def test_z5_reads_it(output, pixels):
    z5py = pytest.importorskip("z5py")
    np.testing.assert_array_equal(z5py.File(str(output), "r")["0"][:], pixels)


def test_the_specification_of_zarr_v2_alone_is_enough_to_read_it(output, pixels):
    described = json.loads((output / "0" / ".zarray").read_text())
    chunks, found = described["chunks"], np.full(described["shape"], 255, described["dtype"])
    for index in np.ndindex(*(-(-side // chunk) for side, chunk in zip(found.shape, chunks, strict=True))):
        stored = (output / "0" / described["dimension_separator"].join(map(str, index))).read_bytes()
        chunk = np.frombuffer(imagecodecs.zstd_decode(stored), described["dtype"]).reshape(chunks)
        place = tuple(
            slice(at * side, min((at + 1) * side, length))
            for at, side, length in zip(index, chunks, found.shape, strict=True)
        )
        found[place] = chunk[tuple(slice(part.stop - part.start) for part in place)]
    np.testing.assert_array_equal(found, pixels)


def test_every_frame_has_its_checksum_all_the_same(output):
    frames = [path for path in (output / "0").rglob("*") if path.is_file() and not path.name.startswith(".z")]
    assert frames
    for frame in frames:
        # RFC 8878: bit 2 of the byte behind the magic number
        assert frame.read_bytes()[4] & 4

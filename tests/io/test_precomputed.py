"""Neuroglancer precomputed: chunks stored as NAME.gz, volumes that begin at a negative voxel."""

import gzip

import numpy as np
import pytest

from emsr_fast.errors import VolumeError
from emsr_fast.io.registry import open_source

pytest.importorskip("tensorstore")  # the helper needs it

from chunk_stores import PIXELS, chunk_files, make, read, tensorstored


@pytest.mark.parametrize("place", ["disk", "server"])
@pytest.mark.parametrize("share", [1, 2])
def test_precomputed_chunks_stored_as_gz_are_read(tmp_path, server, place, share):
    path = make("precomputed", tmp_path / "a")
    for file in chunk_files(path)[::share]:
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    with open_source(path if place == "disk" else f"{server}/a") as source:
        np.testing.assert_array_equal(read(source), PIXELS)
        np.testing.assert_array_equal(source.read(3, slice(9, 40), slice(13, 33)), PIXELS[3, 9:40, 13:33])
        assert "chunks are stored as NAME.gz" in source.info.notes
        assert not source.info.absent


@pytest.mark.parametrize(
    "content",
    [b"no gzip at all", gzip.compress(bytes(2**24)), gzip.compress(bytes(512))[:-4]],
    ids=["other content", "swollen", "cut"],  # gzip's bytes have the time in them
)
def test_a_damaged_or_swollen_gz_is_a_slice_that_fails(tmp_path, content):
    path = make("precomputed", tmp_path / "a")
    for file in chunk_files(path):
        file.with_name(f"{file.name}.gz").write_bytes(content)
        file.unlink()
    with open_source(path) as source, pytest.raises(VolumeError, match=r"\.gz is"):
        source.read(0, slice(None), slice(None))


@pytest.mark.parametrize("offset", [(-8, -16, -3), (0, 0, -2), (-10, 20, -30)])
def test_a_precomputed_volume_may_begin_at_a_negative_voxel(tmp_path, offset):
    tensorstored("precomputed", tmp_path / "a", PIXELS, offset)
    with open_source(tmp_path / "a") as source:
        np.testing.assert_array_equal(read(source), PIXELS)
        assert not source.info.absent
    files = chunk_files(tmp_path / "a")
    for file in files:
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    with open_source(tmp_path / "a") as source:
        np.testing.assert_array_equal(read(source), PIXELS)
    files[3].with_name(f"{files[3].name}.gz").unlink()
    with open_source(tmp_path / "a") as source:
        assert source.info.absent == {"not_stored": 1, "looked_for": 36, "chunks": 36}

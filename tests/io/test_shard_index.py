"""What Zarr shards lack inside: counted by their indexes, at odd ends too; damaged shards are no zeros."""

import numpy as np
import pytest
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, TransposeCodec

from emsr_fast.errors import VolumeError
from emsr_fast.io.readers.parts import shard_index
from emsr_fast.io.registry import open_source

SHAPE, SHARD, CHUNK = (5, 40, 56), (2, 16, 32), (1, 8, 8)
# chunks that begin within the volume: the last shards along each axis reach beyond it
CHUNKS = 5 * 5 * 7
PIXELS = np.random.default_rng(0).integers(1, 200, SHAPE, np.uint8)


def sharded(path, pixels, **options):
    """Write ``pixels``, of which chunks of nothing but 9 are not stored."""
    codec = ShardingCodec(chunk_shape=CHUNK, codecs=[BytesCodec(), Crc32cCodec()], **options)
    array = zarr.create_array(
        path, shape=SHAPE, dtype="u1", fill_value=9, chunks=SHARD, serializer=codec, compressors=None, filters=None
    )
    array[:] = pixels
    return path


def without(*corners):
    pixels = PIXELS.copy()
    for z, y, x in corners:
        pixels[z, y : y + 8, x : x + 8] = 9
    return pixels


@pytest.mark.parametrize(
    "options",
    [{}, {"index_location": "start"}, {"index_codecs": [BytesCodec()]}],
    ids=["index at the end", "index at the start", "index without checksum"],
)
def test_chunks_that_shards_lack_are_counted_and_named_with_the_fill_value(tmp_path, options):
    pixels = without((0, 0, 0), (4, 32, 48), (2, 16, 24))
    with open_source(sharded(tmp_path / "a.zarr", pixels, **options)) as source:
        assert f"3 of {CHUNKS} chunks in shards are not stored: read as the fill value 9" in source.info.notes
        assert source.info.absent == {"not_stored_in_shards": 3, "chunks_in_shards": CHUNKS}
        found = np.stack([source.read(z, slice(0, 40), slice(0, 56)) for z in range(5)])
    np.testing.assert_array_equal(found, pixels)


def test_a_whole_volume_says_nothing_of_it(tmp_path):
    with open_source(sharded(tmp_path / "a.zarr", PIXELS)) as source:
        assert not [note for note in source.info.notes if "shard" in note or "stored" in note]
        assert not source.info.absent


def test_missing_shards_are_counted_beside_it(tmp_path):
    path = sharded(tmp_path / "a.zarr", without((0, 0, 0)))
    (path / "c" / "2" / "2" / "1").unlink()
    with open_source(path) as source:
        assert "1 of 18 shards are not stored: read as the fill value 9" in source.info.notes
        # the last shard has three chunks within the volume
        assert f"1 of {CHUNKS - 3} chunks in shards are not stored: read as the fill value 9" in source.info.notes


def test_shards_without_any_chunk_are_refused(tmp_path):
    path = sharded(tmp_path / "a.zarr", PIXELS)
    for file in (path / "c").rglob("*"):
        if file.is_file():
            # an index of nothing, which no other checksum than this fits
            index = np.full(2 * 2 * 4 * 2, 2**64 - 1, "<u8").tobytes()
            file.write_bytes(index + file.read_bytes()[-4:])
    with pytest.raises(VolumeError, match=f"has none of its {CHUNKS} chunks stored"):
        open_source(path)


@pytest.mark.parametrize(("size", "said"), [(0, "is empty"), (50, "slice 2 of .* cannot be decoded")])
def test_a_shard_that_is_empty_or_cut_is_noted_and_its_slices_fail(tmp_path, size, said):
    path = sharded(tmp_path / "a.zarr", PIXELS)
    file = path / "c" / "1" / "0" / "0"
    file.write_bytes(file.read_bytes()[:size])
    with open_source(path) as source:
        assert "1 shard cut or damaged: what they hold cannot be read" in source.info.notes
        np.testing.assert_array_equal(source.read(0, slice(0, 40), slice(0, 56)), PIXELS[0])
        with pytest.raises(VolumeError, match=said):
            source.read(2, slice(0, 40), slice(0, 56))


def test_an_index_that_leads_out_of_its_shard_is_damaged(tmp_path):
    path = sharded(tmp_path / "a.zarr", PIXELS)
    file = path / "c" / "0" / "0" / "0"
    data = bytearray(file.read_bytes())
    data[-4 - 16 * 16 : -4 - 16 * 16 + 8] = (2**64 - 2).to_bytes(8, "little")
    file.write_bytes(data)
    with open_source(path) as source:
        assert "1 shard cut or damaged: what they hold cannot be read" in source.info.notes


def test_an_index_of_an_unknown_kind_is_said_to_be_unseen(tmp_path):
    codec = ShardingCodec(chunk_shape=CHUNK, codecs=[BytesCodec()])
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=SHAPE, dtype="u1", fill_value=9, chunks=SHARD, serializer=codec, compressors=None,
        filters=[TransposeCodec(order=(0, 1, 2))],
    )  # fmt: skip
    array[:] = PIXELS
    with open_source(tmp_path / "a.zarr") as source:
        assert "what its shards lack inside is not counted, and reads as the fill value 9" in source.info.notes


def test_what_could_not_be_looked_into_in_time_is_said(tmp_path, monkeypatch):
    path = sharded(tmp_path / "a.zarr", PIXELS)
    monkeypatch.setattr(shard_index, "LISTING_SECONDS", -1.0)
    with open_source(path) as source:
        assert "only 0 shards looked into; what others lack reads as the fill value 9" in source.info.notes

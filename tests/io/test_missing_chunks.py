"""Chunks that are not stored, or not under the name that the metadata give them: never read as black without a word."""

import json
import shutil

import h5py
import numpy as np
import pytest
import zarr

from emsr_fast.cli import main
from emsr_fast.errors import VolumeError
from emsr_fast.io.readers.parts import missing_chunks
from emsr_fast.io.registry import open_source

pytest.importorskip("tensorstore")  # the helper needs it

from chunk_stores import CHUNK, MADE_OF_CHUNKS, PIXELS, chunk_files, make, read, tensorstored


@pytest.mark.parametrize("kind", [*MADE_OF_CHUNKS, "hdf5 in one piece"])
def test_a_volume_without_one_stored_chunk_is_refused(tmp_path, kind, capsys):
    path = make(kind, tmp_path / "a.zarr", None)
    assert main(["inspect", str(path)]) == 3
    assert main(["infer", str(path), "-o", str(tmp_path / "out.zarr"), "--input-voxel", "ignore"]) == 3
    assert "none of its" in capsys.readouterr().err
    assert not (tmp_path / "out.zarr").exists()


@pytest.mark.parametrize("kind", MADE_OF_CHUNKS)
def test_a_whole_volume_says_nothing_of_it(tmp_path, kind):
    with open_source(make(kind, tmp_path / "a")) as source:
        assert "stored" not in " ".join(source.info.notes)
        assert not source.info.absent
        np.testing.assert_array_equal(read(source), PIXELS)


@pytest.mark.parametrize("kind", MADE_OF_CHUNKS)
def test_chunks_that_are_not_stored_are_counted_noted_and_in_the_provenance(tmp_path, kind, capsys):
    path = make(kind, tmp_path / "a.zarr", None if kind == "hdf5" else PIXELS)
    if kind == "hdf5":
        with h5py.File(path, "a") as file:
            file["raw"][0:2, :16] = PIXELS[0:2, :16]
        absent, total = 32, 36
    else:
        files = chunk_files(path)
        absent, total = len(files) // 2, len(files)
        for file in files[:absent]:
            file.unlink()
    fill = 0 if kind in ("n5", "precomputed") else 9
    unit = "shards" if kind == "shards" else "chunks"
    words = f"{absent} of {total} {unit} are not stored: read as the fill value {fill}"
    with open_source(path) as source:
        assert words in source.info.notes
        found = read(source)
    assert ((found == PIXELS) | (found == fill)).all()
    assert 0 < np.count_nonzero(found == PIXELS) < PIXELS.size
    assert main(["inspect", str(path)]) == 0
    assert main(["infer", str(path), "-o", str(tmp_path / "out.zarr"), "--input-voxel", "ignore"]) == 0
    printed = capsys.readouterr()
    assert words in printed.out
    assert words in printed.err
    made = zarr.open_group(tmp_path / "out.zarr", mode="r").attrs["emsr_fast"]
    assert made["absent_chunks"] == {"not_stored": absent, "looked_for": total, "chunks": total}


@pytest.mark.parametrize("place", ["disk", "server"])
@pytest.mark.parametrize(("zarr_format", "said"), [(2, "."), (2, "/"), (3, "."), (3, "/"), (3, "v2.")])
def test_chunks_are_read_under_the_separator_that_their_files_have(tmp_path, server, zarr_format, said, place):
    path = tmp_path / "a.zarr"
    other = {"/": ".", ".": "/"}[said[-1]]
    encoding = {"name": "v2" if zarr_format == 2 or "v2" in said else "default", "separator": other}
    zarr.create_array(path, data=PIXELS, chunks=CHUNK, zarr_format=zarr_format, chunk_key_encoding=encoding)
    header = path / (".zarray" if zarr_format == 2 else "zarr.json")
    described = json.loads(header.read_text())
    if zarr_format == 3:
        described["chunk_key_encoding"]["configuration"] = {"separator": said[-1]}
    elif said == "/":
        described["dimension_separator"] = "/"
    else:
        del described["dimension_separator"]
    header.write_text(json.dumps(described))
    with open_source(path if place == "disk" else f"{server}/a.zarr") as source:
        np.testing.assert_array_equal(read(source), PIXELS)
        assert ": read under those names" in " ".join(source.info.notes)
        assert not source.info.absent


@pytest.mark.parametrize("kind", ["zarr2", "zarr3"])
@pytest.mark.parametrize("level", ["", "em/0"])
def test_each_chunk_is_read_under_the_name_that_it_has(tmp_path, kind, level):
    path = make(kind, tmp_path / "a.zarr" / level)
    files = chunk_files(path)
    if level:
        zarr.open_group(tmp_path / "a.zarr", mode="a", zarr_format=int(kind[-1]))
        zarr.open_group(tmp_path / "a.zarr" / "em", mode="a", zarr_format=int(kind[-1]))
    for file in files[:30]:  # most of them
        name = file.relative_to(path).as_posix()
        other = path / name.replace("/", ".") if "/" in name else path / name.replace(".", "/")
        other.parent.mkdir(parents=True, exist_ok=True)
        file.rename(other)
    with open_source(f"{tmp_path / 'a.zarr'}:/{level}" if level else path) as source:
        np.testing.assert_array_equal(read(source), PIXELS)
        assert "30 chunks named like " in " ".join(source.info.notes)
        assert not source.info.absent


def test_over_http_leftovers_never_go_before_chunks_with_the_right_name(tmp_path, server):
    path = make("zarr2", tmp_path / "a.zarr")
    files = chunk_files(path)
    for file in files:
        other = path / file.name.replace(".", "/")
        other.parent.mkdir(parents=True, exist_ok=True)
        other.write_bytes(bytes(512))
    for file in files[4:]:
        file.unlink()
    with open_source(f"{server}/a.zarr") as source:
        found = read(source)
        assert ((found == PIXELS) | (found == 9)).all()
        assert source.info.absent["not_stored"] == 32
        assert "36 files named like 0/0/0 not read" in " ".join(source.info.notes)


def test_what_precomputed_shards_lack_inside_is_said_to_be_unseen(tmp_path):
    path = tmp_path / "a"
    sharding = {"@type": "neuroglancer_uint64_sharded_v1", "preshift_bits": 0, "minishard_bits": 1,
                "shard_bits": 1, "hash": "identity"}  # fmt: skip
    tensorstored("precomputed", path, PIXELS, sharding=sharding)
    with open_source(path) as source:
        assert "which shards, and what in them, is missing cannot be seen here: it reads as 0" in source.info.notes
        np.testing.assert_array_equal(read(source), PIXELS)


def test_files_with_the_other_separator_are_noted_where_the_right_one_is_there(tmp_path):
    path = make("zarr2", tmp_path / "a.zarr")
    (path / "0" / "0").mkdir(parents=True)
    shutil.copy(path / "0.0.1", path / "0" / "0" / "0")
    (path / "9.9.9").write_bytes(b"of the array when it was larger")
    with open_source(path) as source:
        assert (
            "1 chunk named like 0/0/0: read where there is none named like 0.0.0, as the metadata say"
        ) in source.info.notes
        np.testing.assert_array_equal(read(source), PIXELS)


@pytest.mark.parametrize("kind", [kind for kind in MADE_OF_CHUNKS if kind != "hdf5"])
def test_on_a_server_that_lists_nothing_chunks_are_asked_for_one_by_one(tmp_path, server, kind):
    make(kind, tmp_path / "empty", None)
    with pytest.raises(VolumeError, match="none of its"):
        open_source(f"{server}/empty")
    path = make(kind, tmp_path / "some")
    files = chunk_files(path)
    files[0].unlink()
    with open_source(f"{server}/some") as source:
        assert source.info.absent == {"not_stored": 1, "looked_for": len(files), "chunks": len(files)}


def test_where_a_listing_takes_too_long_some_chunks_are_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(missing_chunks, "LISTING_SECONDS", -1.0)
    monkeypatch.setattr(missing_chunks, "SAMPLE", 10)
    path = make("zarr2", tmp_path / "a.zarr")
    with open_source(path) as source:
        assert not source.info.absent
    for file in chunk_files(path)[18:]:
        file.unlink()
    with open_source(path) as source:
        assert source.info.absent == {"not_stored": 5, "looked_for": 10, "chunks": 36}
        assert "5 of 10 chunks looked for (there are 36) are not stored: read as the fill value 9" in source.info.notes
    for file in chunk_files(path):
        file.unlink()
    with pytest.raises(VolumeError, match="none of 10 chunks stored that were looked for, spread over all 36"):
        open_source(path)


def test_a_fill_value_of_null_is_told_as_0(tmp_path):
    path = make("zarr2", tmp_path / "a.zarr")
    described = json.loads((path / ".zarray").read_text())
    (path / ".zarray").write_text(json.dumps({**described, "fill_value": None}))
    chunk_files(path)[0].unlink()
    with open_source(path) as source:
        assert "1 of 36 chunks are not stored: read as the fill value 0" in source.info.notes


def test_more_chunks_are_looked_for_where_none_of_the_first_is_there(tmp_path, server, monkeypatch):
    monkeypatch.setattr(missing_chunks, "SAMPLE", 4)
    monkeypatch.setattr(missing_chunks, "LARGEST_SAMPLE", 20)
    path = make("zarr2", tmp_path / "a.zarr")
    (first, *more) = list(missing_chunks.numbered((3, 3, 4), ".").samples())
    assert (len(first), sum(map(len, more))) == (4, 16)
    kept = more[2][0]
    for file in chunk_files(path):
        if file.name != kept:
            file.unlink()
    with open_source(f"{server}/a.zarr") as source:
        assert source.info.absent == {"not_stored": 15, "looked_for": 16, "chunks": 36}
    (path / kept).unlink()
    with pytest.raises(VolumeError, match=r"none of 20 chunks .* over all 36: it would read as 9 .* copy it to a disk"):
        open_source(f"{server}/a.zarr")
    assert main(["inspect", f"{server}/a.zarr"]) == 3


def test_what_a_listing_without_end_came_upon_counts_as_there(tmp_path):
    class Slow:
        def names(self):
            yield "0.0.1"
            raise missing_chunks.UnlistedError

        def has(self, names):
            return 0

    (found,) = missing_chunks.look_for(Slow(), [missing_chunks.numbered((30, 30, 40), ".")])
    notes, absent = found.checked(tmp_path, 0)
    assert absent["not_stored"] == absent["looked_for"] == 64
    assert "64 of 64 chunks looked for (there are 36000) are not stored" in notes[0]


def test_a_listing_that_a_server_gives_is_counted(tmp_path):
    from emsr_fast.io.readers.parts.kvstore import RemoteFiles, Store

    path = make("zarr2", tmp_path / "a" / "b.zarr")
    chunk_files(path)[3].unlink()
    for files in (RemoteFiles(Store(path), ""), RemoteFiles(Store(tmp_path / "a"), "b.zarr")):
        (found,) = missing_chunks.look_for(files, [missing_chunks.numbered((3, 3, 4), ".")])
        assert (found.found, found.looked_for, found.total) == (35, 36, 36)
        assert files.has(["0.0.0", "0.0.3", "7.7.7"]) == 1


def test_what_cannot_be_seen_is_said():
    class Closed:
        def names(self):
            raise missing_chunks.UnlistedError
            yield

        def has(self, names):
            raise missing_chunks.UnlistedError

    (found,) = missing_chunks.look_for(Closed(), [missing_chunks.numbered((2, 3), ".")])
    notes, absent = found.checked("a.zarr", 0)
    assert notes == ("whether all of its 6 chunks are stored cannot be seen here",)
    assert not absent

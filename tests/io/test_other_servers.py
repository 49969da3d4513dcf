"""Servers that forbid, answer with a page, or do not serve parts of files; and Zarr and N5 that arrived in part.

A volume on a server takes some seconds: tens of requests, each of which waits for a thread.
"""

import functools
import http.server
import json
import shutil
import threading

import numpy as np
import pytest
import zarr

from emsr_fast.cli import main
from emsr_fast.errors import VolumeError
from emsr_fast.io.readers.parts import kvstore
from emsr_fast.io.registry import open_source
from tests.helpers.chunk_stores import PIXELS, make, read

pytest.importorskip("tensorstore")


class Quiet(http.server.SimpleHTTPRequestHandler):
    """As ``python -m http.server``, which knows no ranges."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *words):
        pass


class Bucket(Quiet):
    """As S3 where not everyone may list: what is not there is forbidden."""

    def send_error(self, code, *words, **named):
        super().send_error(403 if code == 404 else code, *words, **named)


class Unauthorised(Quiet):
    def send_error(self, code, *words, **named):
        super().send_error(401 if code == 404 else code, *words, **named)


class WebSite(Quiet):
    """As sites of one page: whatever is not there is that page."""

    def send_error(self, code, *words, **named):
        page = b"<!DOCTYPE html><html><body>a site</body></html>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page)


@pytest.fixture
def served(tmp_path, monkeypatch):
    """What serves ``tmp_path`` in one of these ways."""
    monkeypatch.setattr(kvstore, "_RETRIES", {"max_retries": 1, "initial_delay": "1ms", "max_delay": "10ms"})
    servers = []

    def serve(kind):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(kind, directory=str(tmp_path)))
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def ome(path, levels=("0",), there=("0",)):
    """An OME-Zarr 0.4 of which some levels are there; its metadata list more."""
    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
    listed = [
        {"path": name, "coordinateTransformations": [{"type": "scale", "scale": [50, 24 * 2**n, 24 * 2**n]}]}
        for n, name in enumerate(levels)
    ]
    attributes = {"multiscales": [{"version": "0.4", "axes": axes, "datasets": listed}]}
    group = zarr.create_group(path, zarr_format=2, attributes=attributes)
    for name in there:
        group.create_array(name, data=PIXELS, chunks=(2, 16, 16))
    return path


@pytest.mark.parametrize(
    ("kind", "volume"),
    [
        (Bucket, "ome"),
        (Bucket, "zarr3"),
        (Bucket, "n5"),
        (Bucket, "precomputed"),
        (Unauthorised, "ome"),
        (WebSite, "ome"),
    ],
)
def test_what_a_server_does_not_say_is_absent_as_long_as_something_is_there(tmp_path, served, kind, volume):
    if volume == "ome":
        ome(tmp_path / "a")
    else:
        make(volume, tmp_path / "a")
    with open_source(f"{served(kind)}/a") as source:
        np.testing.assert_array_equal(read(source), PIXELS)


def test_a_server_that_forbids_everything_is_named_and_its_page_is_not_quoted(tmp_path, served):
    with pytest.raises(VolumeError, match=r"forbids to read info, zarr\.json.*credentials") as raised:
        open_source(f"{served(Bucket)}/nothing")
    assert "DOCTYPE" not in str(raised.value)


def test_a_chunk_that_a_server_forbids_says_so(tmp_path, served):
    path = ome(tmp_path / "a")
    next((path / "0").glob("*0.0.0")).unlink()
    with open_source(f"{served(Bucket)}/a") as source:
        with pytest.raises(VolumeError, match=r"slice 0 .*not there, or closed to you") as raised:
            source.read(0, slice(None), slice(None))
        assert "DOCTYPE" not in str(raised.value)
        assert "copy or export" not in str(raised.value)
        np.testing.assert_array_equal(source.read(5, slice(None), slice(None)), PIXELS[5])


@pytest.mark.parametrize("command", ["inspect", "infer"])
def test_shards_on_a_server_without_ranges_are_refused_with_the_reason(tmp_path, served, capsys, command):
    make("shards", tmp_path / "a")
    url = f"{served(Quiet)}/a"
    more = ["-o", str(tmp_path / "out.zarr"), "--input-voxel", "ignore"] if command == "infer" else []
    assert main([command, url, *more]) == 3
    said = capsys.readouterr().err
    assert "does not serve parts of files (HTTP ranges), which sharded volumes need; use another server, " in said
    assert said.rstrip().endswith("or copy the volume")
    assert "export" not in said


def test_the_first_level_that_is_not_there_is_named_with_those_that_are(tmp_path, served):
    path = ome(tmp_path / "a.zarr", ("0", "1", "2", "3"), ("2", "3"))
    for where in (path, f"{served(Quiet)}/a.zarr", f"{served(Bucket)}/a.zarr"):
        with pytest.raises(VolumeError, match=r"level 0 is not there; there are: 2, 3; name one with `key`"):
            open_source(where)
        with open_source(where, key="2") as source:
            assert source.info.voxel_size_nm == (50, 96, 96)
            np.testing.assert_array_equal(read(source), PIXELS)
    with open_source(path, key="2") as source:
        assert any(note.startswith("2 levels: 2, 3;") for note in source.info.notes)


def test_an_image_of_which_no_level_is_there_is_refused(tmp_path):
    with pytest.raises(VolumeError, match="none of the levels that its metadata list"):
        open_source(ome(tmp_path / "a.zarr", ("0", "1"), ()))


@pytest.mark.parametrize("kind", ["zarr2", "zarr3"])
@pytest.mark.parametrize("root", ["kept", "missing"])
def test_groups_above_an_array_need_no_file(tmp_path, served, kind, root, recwarn):
    path = tmp_path / "a.zarr"
    zarr.create_group(path, zarr_format=2 if kind == "zarr2" else 3)
    make(kind, path / "volumes" / "deep" / "raw")
    marks = (".zgroup", ".zattrs", "zarr.json")
    for folder in (path / "volumes", path / "volumes" / "deep", *((path,) if root == "missing" else ())):
        for mark in marks:
            (folder / mark).unlink(missing_ok=True)
    for where in (path, f"{path}:/volumes/deep/raw", f"{path}:/volumes", f"{path}/volumes/deep/raw"):
        with open_source(where) as source:
            np.testing.assert_array_equal(read(source), PIXELS)
    with open_source(f"{served(Quiet)}/a.zarr", key="volumes/deep/raw") as source:
        np.testing.assert_array_equal(read(source), PIXELS)
    assert not [one for one in recwarn if "Zarr" in one.category.__name__]
    with pytest.raises(VolumeError, match=r"no image 'other'.*volumes/deep/raw \(6 x 48 x 56 uint8\)"):
        open_source(path, key="other")


def test_groups_above_an_n5_dataset_need_no_file(tmp_path):
    make("n5", tmp_path / "a.n5" / "volumes" / "raw")
    for where in (tmp_path / "a.n5", f"{tmp_path}/a.n5:/volumes/raw"):
        with open_source(where) as source:
            np.testing.assert_array_equal(read(source), PIXELS)


def test_a_link_out_of_a_zarr_folder_is_no_image_of_it(tmp_path):
    make("zarr3", tmp_path / "other")
    make("zarr3", tmp_path / "a.zarr" / "own")
    (tmp_path / "a.zarr" / "link").symlink_to("../other")
    with open_source(tmp_path / "a.zarr") as source:
        assert source.info.key == "own"


@pytest.mark.parametrize("version", [2, 3])
def test_a_codec_that_is_not_installed_is_named(tmp_path, version):
    zarr.create_array(tmp_path / "a.zarr", data=PIXELS, zarr_format=version)
    mark = tmp_path / "a.zarr" / (".zarray" if version == 2 else "zarr.json")
    described = json.loads(mark.read_text())
    if version == 2:
        described["compressor"] = {"id": "imagecodecs_nothing"}
    else:
        described["codecs"][-1] = {"name": "imagecodecs_nothing", "configuration": {}}
    mark.write_text(json.dumps(described))
    with pytest.raises(VolumeError, match=r"compressed with imagecodecs_nothing, .*install"):
        open_source(tmp_path / "a.zarr")


def test_a_codec_that_tensorstore_lacks_is_named(tmp_path):
    path = make("n5", tmp_path / "a.n5")
    described = json.loads((path / "attributes.json").read_text())
    (path / "attributes.json").write_text(json.dumps(described | {"compression": {"type": "lz4"}}))
    with pytest.raises(VolumeError, match='"lz4" is not registered: tensorstore lacks that codec'):
        open_source(path)
    shutil.rmtree(path)

"""Files of a volume that are pipes, and links that lead out of it: refused, never waited for, never read."""

import gzip
import json
import os
import struct
import subprocess
import sys

import h5py
import numpy as np
import pytest
import zarr

from emsr_fast.errors import VolumeError
from emsr_fast.io.registry import open_source
from reading import read_apart

PIXELS = np.random.default_rng(0).integers(1, 255, (4, 16, 18)).astype(np.uint8)


def zarr_folder(path, zarr_format=3, **options):
    zarr.create_array(path, data=PIXELS, chunks=(2, 16, 18), zarr_format=zarr_format, **options)


def n5_folder(path):
    (path / "0" / "0").mkdir(parents=True)
    described = {"dimensions": [18, 16, 4], "blockSize": [18, 16, 2], "dataType": "uint8", "axes": ["x", "y", "z"]}
    (path / "attributes.json").write_text(json.dumps(described | {"compression": {"type": "raw"}}))
    for number in range(2):
        header = struct.pack(">HHIII", 0, 3, 18, 16, 2)
        (path / "0" / "0" / str(number)).write_bytes(header + PIXELS[2 * number : 2 * number + 2].tobytes())


def precomputed_folder(path, packed=False):
    (path / "8").mkdir(parents=True)
    scale = {"key": "8", "size": [18, 16, 4], "resolution": [8, 8, 8], "chunk_sizes": [[18, 16, 2]], "encoding": "raw"}
    described = {"type": "image", "data_type": "uint8", "num_channels": 1, "scales": [scale]}
    (path / "info").write_text(json.dumps({"@type": "neuroglancer_multiscale_volume", **described}))
    for first in (0, 2):
        content = PIXELS[first : first + 2].tobytes()
        name = f"0-18_0-16_{first}-{first + 2}"
        (path / "8" / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(content) if packed else content)


VOLUMES = {
    "Zarr v3": (zarr_folder, ("c/1/0/0", "zarr.json")),
    "Zarr v3, shards": (lambda path: zarr_folder(path, shards=(4, 16, 18)), ("c/0/0/0",)),
    "Zarr v2": (lambda path: zarr_folder(path, 2), ("1.0.0", ".zarray", ".zattrs")),
    "N5": (n5_folder, ("0/0/1", "attributes.json")),
    "precomputed": (precomputed_folder, ("8/0-18_0-16_2-4", "info")),
    "precomputed .gz": (lambda path: precomputed_folder(path, packed=True), ("8/0-18_0-16_2-4.gz",)),
}
PARTS = [(kind, part) for kind, (_, parts) in VOLUMES.items() for part in parts]


@pytest.mark.parametrize(("kind", "part"), PARTS)
def test_a_pipe_in_a_volume_is_refused_and_not_waited_for(tmp_path, kind, part):
    VOLUMES[kind][0](tmp_path / "a.zarr")
    (tmp_path / "a.zarr" / part).unlink(missing_ok=True)
    os.mkfifo(tmp_path / "a.zarr" / part)
    said, _ = read_apart(tmp_path / "a.zarr")
    assert said.startswith("refused")
    if part not in ("info", "attributes.json"):  # without these nothing tells what the folder is
        assert "pipe" in said


@pytest.mark.parametrize(
    ("make", "name", "part"), [(precomputed_folder, "a.precomputed", "info"), (n5_folder, "a.n5", "attributes.json")]
)
def test_a_pipe_in_the_place_of_the_metadata_is_named(tmp_path, make, name, part):
    make(tmp_path / name)
    (tmp_path / name / part).unlink()
    os.mkfifo(tmp_path / name / part)
    said, _ = read_apart(tmp_path / name)
    assert said.startswith("refused")
    assert f"{part} cannot be read: it is a pipe" in said or f"{part}, a part of" in said


@pytest.mark.parametrize(("kind", "part"), PARTS)
def test_a_link_that_leads_out_of_a_volume_is_refused(tmp_path, kind, part):
    VOLUMES[kind][0](tmp_path / "a.zarr")
    (tmp_path / "a.zarr" / part).touch()
    (tmp_path / "a.zarr" / part).rename(tmp_path / "elsewhere")
    (tmp_path / "a.zarr" / part).symlink_to(tmp_path / "elsewhere")
    with (
        pytest.raises(VolumeError, match="is a link that leads out of the volume"),
        open_source(tmp_path / "a.zarr") as a,
    ):
        a.read(3, slice(0, 16), slice(0, 18))


@pytest.mark.parametrize("kind", VOLUMES)
def test_a_link_inside_a_volume_is_followed(tmp_path, kind):
    VOLUMES[kind][0](tmp_path / "a.zarr")
    part = tmp_path / "a.zarr" / VOLUMES[kind][1][0]
    part.rename(tmp_path / "a.zarr" / "kept")
    part.symlink_to(tmp_path / "a.zarr" / "kept")
    with open_source(tmp_path / "a.zarr") as source:
        np.testing.assert_array_equal(source.read(3, slice(0, 16), slice(0, 18)), PIXELS[3])


def bigdataviewer(path, **links):
    with h5py.File(path, "w") as file:
        file["t00000/s00/0/cells"] = PIXELS
        for name, link in links.items():
            file[name] = link


def test_tables_in_other_files_are_not_read(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["resolutions"] = [[7.0, 7, 7]]
    bigdataviewer(tmp_path / "a.h5", s00=h5py.ExternalLink("other.h5", "/"))
    bigdataviewer(tmp_path / "b.h5")
    with h5py.File(tmp_path / "b.h5", "a") as file:
        layout = h5py.VirtualLayout((1, 3), "f8")
        layout[:] = h5py.VirtualSource("other.h5", "resolutions", (1, 3))
        file.create_virtual_dataset("s00/resolutions", layout)
    for name in ("a.h5", "b.h5"):
        with open_source(tmp_path / name) as source:
            assert source.info.voxel_size_from == "not stated in the file"


def test_an_xml_file_that_is_a_pipe_is_not_waited_for(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["t00000/s00/0/cells"], file["s00/resolutions"] = PIXELS, [[1.0, 1, 1]]
    os.mkfifo(tmp_path / "a.xml")
    with open_source(tmp_path / "a.h5") as source:
        assert "pipe" in source.info.voxel_size_from


@pytest.mark.parametrize(
    "command",
    [["export", "-o", "a.onnx", "--model"], ["train"], ["finetune", "-o", "a.safetensors", "--pairs"]],
    ids=lambda command: command[0],
)
def test_a_pipe_in_the_place_of_a_model_settings_or_a_table_is_refused(tmp_path, command):
    os.mkfifo(tmp_path / "pipe")
    done = subprocess.run(
        [sys.executable, "-m", "emsr_fast", *command, tmp_path / "pipe"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 3
    assert "pipe or device" in done.stderr or "a pipe, device or folder" in done.stderr


@pytest.mark.parametrize("part", ["zarr.json", "c/1/0/0"])
def test_verify_waits_for_no_pipe(tmp_path, part):
    group = zarr.create_group(tmp_path / "a.zarr", attributes={"multiscales": [{"datasets": [{"path": "0"}]}]})
    group.create_array("0", data=PIXELS, chunks=(2, 16, 18))
    (tmp_path / "a.zarr" / "0" / part).unlink()
    os.mkfifo(tmp_path / "a.zarr" / "0" / part)
    done = subprocess.run(
        [sys.executable, "-m", "emsr_fast", "verify", tmp_path / "a.zarr"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 4, done.stderr
    assert "a pipe, device or folder" in done.stdout or "is no file" in done.stdout

"""WEBKNOSSOS datasets: layers in WKW cubes (written by wkw), as Zarr (by zarr-python) and as N5 (by tensorstore)."""

import json
import sys

import numpy as np
import pytest
import zarr

from emsr_fast.cli import main
from emsr_fast.errors import VolumeError
from emsr_fast.io.registry import open_source
from reading import rise_in_memory

wkw = pytest.importorskip("wkw")
STACK = np.random.default_rng(0).integers(1, 250, (20, 50, 70)).astype("u1")
FIRST = (5, 9, 3)  # of the bounding box, x, y, z
SCALE = {"factor": [4.0, 5.0, 30.0], "unit": "nanometer"}


def in_place(stack):
    """Return ``stack`` as (x, y, z), from the dataset's own first voxel on."""
    x, y, z = FIRST
    placed = np.zeros((x + stack.shape[2], y + stack.shape[1], z + stack.shape[0]), stack.dtype)
    placed[x:, y:, z:] = stack.T
    return placed


def as_wkw(folder, placed, *, blocks=1):
    header = wkw.Header(placed.dtype.type, placed.shape[0], block_len=8, file_len=4, block_type=blocks)
    if blocks > 1:
        # such cubes are written whole
        placed = np.pad(placed, [(0, 0), *((0, -side % 32) for side in placed.shape[1:])])
    with wkw.Dataset.create(str(folder), header) as file:
        file.write((0, 0, 0), np.asfortranarray(placed))


def as_zarr(folder, placed, *, zarr_format=3):
    zarr.create_array(folder, data=placed, chunks=(1, 16, 16, 16), zarr_format=zarr_format)


def as_n5(folder, placed):
    tensorstore = pytest.importorskip("tensorstore")
    spec = {"driver": "n5", "kvstore": {"driver": "file", "path": str(folder)}, "create": True}
    spec["metadata"] = {
        "dimensions": placed.shape,
        "blockSize": [1, 16, 16, 16],
        "dataType": placed.dtype.name,
        "compression": {"type": "gzip"},
    }
    tensorstore.open(spec).result()[...] = placed


WRITERS = {
    "wkw": as_wkw,
    "wkw lz4": lambda folder, placed: as_wkw(folder, placed, blocks=2),
    "zarr": lambda folder, placed: as_zarr(folder, placed, zarr_format=2),
    "zarr3": as_zarr,
    "n5": as_n5,
}


def layer(name="color", *, kind="zarr3", mags=(1,), shape=STACK.shape, **more):
    x, y, z = FIRST
    return {
        "name": name,
        "category": "color",
        "boundingBox": {"topLeft": [x, y, z], "width": shape[2], "height": shape[1], "depth": shape[0]},
        "elementClass": "uint8",
        "dataFormat": kind.split()[0],
        "numChannels": 1,
        "mags": [{"mag": [mag] * 3, "path": f"./{name}/{mag}"} for mag in mags],
        **more,
    }


def dataset(folder, *layers, scale=SCALE, write=(("color/1", "zarr3", STACK),)):
    folder.mkdir(exist_ok=True)
    properties = {"id": {"name": "a", "team": ""}, "dataLayers": list(layers or [layer()]), "version": 1}
    (folder / "datasource-properties.json").write_text(
        json.dumps({**properties, **({"scale": scale} if scale else {})})
    )
    for place, kind, stack in write:
        WRITERS[kind](folder / place, in_place(stack)[None])
    return folder


def check(source, stack=STACK):
    assert (source.shape, source.dtype) == (stack.shape, stack.dtype)
    for z in (0, 7, stack.shape[0] - 1):
        np.testing.assert_array_equal(source.read(z, slice(None), slice(None)), stack[z])
    np.testing.assert_array_equal(source.read(3, slice(9, 40), slice(13, 66)), stack[3, 9:40, 13:66])


@pytest.mark.parametrize("kind", WRITERS)
def test_the_bounding_box_of_a_layer_is_read_in_each_format(tmp_path, kind):
    path = dataset(tmp_path / "a", layer(kind=kind), write=[("color/1", kind, STACK)])
    with open_source(path) as source:
        assert source.info.format.startswith("WEBKNOSSOS, ")
        assert source.info.key == "color/1"
        assert source.info.voxel_size_nm == (30, 5, 4)
        assert source.info.voxel_size_from == "scale in datasource-properties.json"
        check(source)


@pytest.mark.parametrize("dtype", ["i1", "u2", "i2", "f4"])
def test_other_types_are_kept(tmp_path, dtype):
    stack = (STACK % 120).astype(dtype)
    with open_source(dataset(tmp_path / "a", layer(kind="wkw"), write=[("color/1", "wkw", stack)])) as source:
        check(source, stack)


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        ([4, 5, 30], (30, 5, 4)),
        ({"factor": [0.004, 0.005, 0.03], "unit": "micrometer"}, (30, 5, 4)),
        ({"factor": [4, 5, 30], "unit": "parsec"}, (None, None, None)),
        (None, (None, None, None)),
    ],
)
def test_each_way_to_state_the_scale(tmp_path, scale, expected):
    with open_source(dataset(tmp_path / "a", scale=scale)) as source:
        assert source.info.voxel_size_nm == expected


def test_another_magnification_has_larger_voxels(tmp_path):
    coarse = STACK[:11, :26, :36]  # from 5 // 2, 9 // 2 and 3 // 2 on, to 76 / 2, 60 / 2, 24 / 2
    mags = [{"mag": 2, "path": "./color/2"}, {"mag": [1, 1, 1], "path": "./color/1"}]
    path = dataset(tmp_path / "a", layer() | {"mags": mags})
    placed = np.zeros((1, 38, 30, 12), "u1")
    placed[0, 2:38, 4:30, 1:12] = coarse.T
    as_zarr(path / "color" / "2", placed)
    with open_source(f"{path}", "color/2") as source:
        assert source.info.voxel_size_nm == (60, 10, 8)
        assert source.shape == (11, 26, 36)
        np.testing.assert_array_equal(source.read(5, slice(None), slice(None)), coarse[5])
    with open_source(path) as source:
        assert source.info.key == "color/1"
        assert "2 images: color/1, color/2; another one with `key`" in source.info.notes


def test_the_old_list_of_resolutions(tmp_path):
    old = {"mags": None, "wkwResolutions": [{"resolution": [1, 1, 1], "cubeLength": 32}]}
    with open_source(
        dataset(tmp_path / "a", layer(kind="wkw", **{}) | old, write=[("color/1", "wkw", STACK)])
    ) as source:
        check(source)


def test_of_several_layers_one_is_named_and_segmentations_are_left_out(tmp_path):
    other = [("color/1", "zarr3", STACK), ("segmentation/1", "zarr3", STACK)]
    path = dataset(tmp_path / "a", layer(), layer("segmentation", category="segmentation"), write=other)
    with open_source(path) as source:
        assert source.info.key == "color/1"
    with open_source(path, "segmentation") as source:
        assert source.info.key == "segmentation/1"
    path = dataset(tmp_path / "b", layer(), layer("em"), write=[("color/1", "zarr3", STACK), ("em/1", "zarr3", STACK)])
    with pytest.raises(VolumeError, match=r"2 images; name one with `key`: color/1 \(20 x 50 x 70 uint8\), em/1"):
        open_source(path)


@pytest.mark.parametrize("kind", ["wkw", "zarr3"])
def test_channels_are_chosen(tmp_path, kind):
    path = dataset(tmp_path / "a", layer(kind=kind, numChannels=2), write=[])
    WRITERS[kind](path / "color" / "1", np.stack([in_place(STACK), in_place(STACK + 1)]))
    with pytest.raises(VolumeError, match="2 channels"):
        open_source(path)
    with open_source(path, channel=1) as source:
        check(source, STACK + 1)


def test_cubes_that_are_not_there_are_counted(tmp_path):
    path = dataset(tmp_path / "a", layer(kind="wkw"), write=[("color/1", "wkw", STACK)])
    (path / "color/1/z0/y1/x1.wkw").unlink()
    with open_source(path) as source:
        assert source.info.absent == {"not_stored": 1, "looked_for": 6, "chunks": 6}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"elementClass": "uint24"}, "in colour"),
        ({"mags": [{"mag": 1, "path": "https://host/color/1"}]}, "on a server"),
        ({"mags": [{"mag": 1, "path": "../b/color/1"}]}, "another folder|leads out"),
        ({"mags": [{"mag": 0, "path": "color/1"}]}, "magnification 0"),
        ({"mags": []}, "no image in it"),
        ({"dataFormat": "tar"}, "format 'tar'"),
        ({"boundingBox": {"topLeft": [0, 0, 0], "width": 999, "height": 5, "depth": 5}}, "box of color/1 ends"),
        ({"boundingBox": {"topLeft": [0, 0, 0], "width": 0, "height": 5, "depth": 5}}, "the bounding box"),
        ({"boundingBox": 5}, "cannot be read as WEBKNOSSOS"),
    ],
)  # fmt: skip
def test_what_is_not_read_is_refused_in_one_line(tmp_path, capsys, change, reason):
    path = dataset(tmp_path / "a", layer() | change)
    assert main(["inspect", str(path)]) == 3
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    with pytest.raises(VolumeError, match=reason):
        open_source(path)


@pytest.mark.parametrize(("at", "value"), [(0, 0), (4, 255), (4, 0x32), (5, 9), (6, 2)])
def test_a_cube_with_another_header_never_reaches_the_library(tmp_path, at, value):
    path = dataset(tmp_path / "a", layer(kind="wkw"), write=[("color/1", "wkw lz4", STACK)])
    cube = path / "color/1/z0/y0/x0.wkw"
    content = bytearray(cube.read_bytes())
    content[at] = value
    cube.write_bytes(content)
    with open_source(path) as source, pytest.raises(VolumeError, match=r"x0\.wkw"):
        source.read(0, slice(None), slice(None))


@pytest.mark.parametrize("at", [8, 16, 24, 16 + 8 * 63])
def test_a_list_of_blocks_that_cannot_be_true_never_reaches_the_library(tmp_path, at):
    path = dataset(tmp_path / "a", layer(kind="wkw"), write=[("color/1", "wkw lz4", STACK)])
    cube = path / "color/1/z0/y0/x0.wkw"
    content = bytearray(cube.read_bytes())
    content[at + 5] = 1
    cube.write_bytes(content)
    with open_source(path) as source, pytest.raises(VolumeError, match="its list of 64 blocks does not fit"):
        source.read(0, slice(None), slice(None))


def test_a_cube_that_is_a_link_out_of_the_dataset_is_not_followed(tmp_path):
    path = dataset(tmp_path / "a", layer(kind="wkw"), write=[("color/1", "wkw", STACK)])
    cube = path / "color/1/z0/y0/x0.wkw"
    cube.rename(tmp_path / "elsewhere.wkw")
    cube.symlink_to(tmp_path / "elsewhere.wkw")
    with open_source(path) as source, pytest.raises(VolumeError, match="leads out of the volume"):
        source.read(0, slice(None), slice(None))


def test_without_wkw_the_extra_is_named(tmp_path, capsys, monkeypatch):
    path = dataset(tmp_path / "a", layer(kind="wkw"), write=[("color/1", "wkw", STACK)])
    monkeypatch.setitem(sys.modules, "wkw", None)
    assert main(["inspect", str(path)]) == 3
    assert "needs the extra emsr-fast[formats]: wkw is not installed" in capsys.readouterr().err


def test_a_volume_is_read_by_its_blocks(tmp_path):
    stack = np.ones((50, 1024, 1024), "u1")
    path = dataset(tmp_path / "a", layer(kind="wkw", shape=stack.shape), write=[])
    header = wkw.Header(np.uint8, block_len=32, file_len=32)
    with wkw.Dataset.create(str(path / "color/1"), header) as file:
        file.write((0, 0, 0), np.asfortranarray(in_place(stack)))
    # the blocks that slices share are kept: 64 slices of a megabyte
    assert rise_in_memory(path) < (64 + 21) * 2**20

"""N5, Neuroglancer precomputed and volumes on a server, all made by tensorstore, zarr-python or by hand."""

import json
import sys

import numcodecs
import numpy as np
import pytest
import zarr

from emsr_fast.errors import BackendError, VolumeError
from emsr_fast.io.readers.parts import kvstore
from emsr_fast.io.registry import open_source

tensorstore = pytest.importorskip("tensorstore")

EVERYTHING = slice(None)
PIXELS = np.random.default_rng(0).integers(0, 255, (7, 50, 70)).astype(np.uint8)


def n5(path, pixels=PIXELS, **attributes):
    """Write ``pixels`` (z, y, x) as N5, whose axes are x, y, z."""
    tensorstore.open(
        {
            "driver": "n5",
            "kvstore": {"driver": "file", "path": str(path)},
            "metadata": {
                "dimensions": pixels.shape[::-1],
                "blockSize": [16, 16, 4],
                "dataType": pixels.dtype.name,
                "compression": {"type": "gzip"},
            },
            "create": True,
        }
    ).result()[...] = pixels.T
    described = json.loads((path / "attributes.json").read_text())
    (path / "attributes.json").write_text(json.dumps(described | attributes))
    return path


def precomputed(path, pixels=PIXELS, encoding="raw"):
    """Write two scales whose voxels are counted from (10, 20, 30) on."""
    for n in range(2):
        coarse = pixels[:, :: 2**n, :: 2**n]
        tensorstore.open(
            {
                "driver": "neuroglancer_precomputed",
                "kvstore": {"driver": "file", "path": str(path)},
                "multiscale_metadata": {"type": "image", "data_type": pixels.dtype.name, "num_channels": 1},
                "scale_metadata": {
                    "size": coarse.shape[::-1],
                    "encoding": encoding,
                    "chunk_size": [16, 16, 4],
                    "resolution": [8 * 2**n, 8 * 2**n, 33],
                    "voxel_offset": [10, 20, 30],
                },
                "create": True,
            }
        ).result()[...] = coarse.T[..., None]
    return path


def check(source, pixels=PIXELS):
    assert source.shape == pixels.shape
    assert source.dtype == pixels.dtype
    for z in (0, pixels.shape[0] - 1):
        np.testing.assert_array_equal(source.read(z, EVERYTHING, EVERYTHING), pixels[z])
    np.testing.assert_array_equal(source.read(3, slice(9, 20), slice(13, 33)), pixels[3, 9:20, 13:33])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_an_n5_dataset_is_read_with_its_axes_turned(tmp_path, dtype):
    pixels = PIXELS.astype(dtype)
    with open_source(n5(tmp_path / "a.n5", pixels, resolution=[4, 5, 30], units=["nm", "nm", "nm"])) as source:
        check(source, pixels)
        assert source.info.format == "N5"
        assert source.info.axes.startswith("XYZ")
        assert source.info.chunks == (4, 16, 16)
        assert source.info.voxel_size_nm == (30, 5, 4)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"pixelResolution": {"unit": "um", "dimensions": [0.004, 0.005, 0.03]}}, (30, 5, 4)),
        ({"pixelResolution": {"unit": "nm", "dimensions": [4, 5, 30]}, "downsamplingFactors": [2, 2, 1]}, (30, 10, 8)),
        ({"transform": {"axes": ["z", "y", "x"], "scale": [30, 5, 4], "units": ["nm"] * 3}}, (30, 5, 4)),
        ({}, (None, None, None)),
    ],
)
def test_n5_voxel_sizes_of_every_tool(tmp_path, attributes, expected):
    with open_source(n5(tmp_path / "a.n5", **attributes)) as source:
        for found, size in zip(source.info.voxel_size_nm, expected, strict=True):
            assert found == (size if size is None else pytest.approx(size))


def test_a_pyramid_and_several_datasets_of_n5(tmp_path):
    root = tmp_path / "a.n5"
    n5(root / "em" / "s0")
    n5(root / "em" / "s1", PIXELS[:, ::2, ::2], downsamplingFactors=[2, 2, 1])
    (root / "attributes.json").write_text('{"n5": "2.5.0"}')
    (root / "em" / "attributes.json").write_text('{"resolution": [4, 5, 30]}')
    with pytest.raises(VolumeError, match=r"2 images; name one with `key`: em/s0 \(70 x 50 x 7 uint8\), em/s1"):
        open_source(root)
    with open_source(root, key="em") as source:
        check(source)
        assert source.info.key == "em/s0"
        assert source.info.voxel_size_nm == (30, 5, 4)
    with open_source(f"{root}:em/s1") as source:
        assert source.info.voxel_size_nm == (30, 10, 8)


@pytest.mark.parametrize("encoding", ["raw", "png"])
def test_precomputed_volumes_and_their_scales(tmp_path, encoding):
    path = precomputed(tmp_path / "a", encoding=encoding)
    with open_source(path) as source:
        check(source)
        assert source.info.voxel_size_nm == (33, 8, 8)
        assert source.info.key == "8_8_33"
    with open_source(path, key="16_16_33") as source:
        check(source, PIXELS[:, ::2, ::2])
        assert source.info.voxel_size_nm == (33, 16, 16)
    with pytest.raises(VolumeError, match=r"no image '1' .* 8_8_33 \(70 x 50 x 7\)"):
        open_source(path, key="1")
    info = json.loads((path / "info").read_text())
    info["scales"][0]["key"] = "../other"
    (path / "info").write_text(json.dumps(info))
    with pytest.raises(VolumeError, match="leads out of it"):
        open_source(path)


def ome(path, zarr_format):
    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
    level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [30.0, 4.0, 4.0]}]}
    multiscale = {"axes": axes, "datasets": [level]}
    attributes = {"ome": {"version": "0.5", "multiscales": [multiscale]}}
    if zarr_format == 2:
        attributes = {"multiscales": [{**multiscale, "version": "0.4"}]}
    group = zarr.create_group(path, zarr_format=zarr_format, attributes=attributes)
    group.create_array("0", data=PIXELS, chunks=(4, 32, 32))
    return path


@pytest.mark.parametrize("scheme", ["http", "s3"])
@pytest.mark.parametrize("kind", ["Zarr v2", "Zarr v3", "OME-Zarr 0.4", "OME-Zarr 0.5", "N5", "precomputed"])
def test_every_format_is_read_from_a_server(tmp_path, server, monkeypatch, kind, scheme):
    name = "a.zarr" if "Zarr" in kind else "a"
    path = tmp_path / "bucket" / name
    if kind.startswith("Zarr"):
        zarr.create_array(path, data=PIXELS, chunks=(4, 32, 32), zarr_format=int(kind[-1]))
    elif kind.startswith("OME"):
        ome(path, 2 if kind.endswith("4") else 3)
    else:
        (n5 if kind == "N5" else precomputed)(path)
    address = f"{server}/bucket/{name}"
    if scheme == "s3":
        monkeypatch.setenv("AWS_ENDPOINT_URL", server)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
        address = f"s3://bucket/{name}"
    with open_source(address) as source:
        check(source)
        assert kind in source.info.format
        assert str(source.info.path) == address
        assert source.info.path.name == name
    if kind.startswith("OME"):
        with open_source(f"{address}:/0") as source:
            assert source.info.voxel_size_nm == (30, 4, 4)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_level_on_a_server_is_described_by_the_folders_above_it(tmp_path, server, zarr_format):
    ome(tmp_path / "plates" / "one" / "img.zarr", zarr_format)
    zarr.create_array(tmp_path / "alone" / "b.zarr", data=PIXELS, chunks=(4, 32, 32), zarr_format=zarr_format)
    with open_source(f"{server}/plates/one/img.zarr/0") as source:
        check(source)
        assert source.info.voxel_size_nm == (30, 4, 4)
        assert source.info.format.startswith("OME-Zarr")
    with open_source(f"{server}/alone/b.zarr") as source:
        assert source.info.voxel_size_nm == (None, None, None)


def test_a_negative_scale_of_n5_gives_its_amount(tmp_path):
    transform = {"axes": ["z", "y", "x"], "scale": [-30, 5, 4], "units": ["nm"] * 3, "translate": [0, 0, 0]}
    with open_source(n5(tmp_path / "a.n5", transform=transform)) as source:
        assert source.info.voxel_size_nm == (30, 5, 4)
        assert source.info.voxel_size_from == "attribute transform; the amount, since it is negative"


def test_an_n5_container_given_by_its_root_has_the_size_of_its_datasets_group(tmp_path):
    group = tmp_path / "em.n5" / "setup0" / "timepoint0"
    n5(group / "s0")
    (tmp_path / "em.n5" / "attributes.json").write_text('{"n5": "2.0.0"}')
    (group.parent / "attributes.json").write_text('{"downsamplingFactors": [[1, 1, 1]]}')
    (group / "attributes.json").write_text('{"multiScale": true, "resolution": [4, 5, 30]}')
    for place in (tmp_path / "em.n5", group.parent, group):
        with open_source(place) as source:
            assert source.info.voxel_size_nm == (30, 5, 4)


def test_bigdataviewers_n5_has_the_size_and_unit_of_the_xml_beside_it(tmp_path):
    root = tmp_path / "em.n5"
    for level, factor in enumerate((1, 2)):
        n5(root / f"setup0/timepoint0/s{level}", PIXELS[:, ::factor, ::factor], downsamplingFactors=[factor, factor, 1])
    (root / "attributes.json").write_text('{"n5": "2.0.0"}')
    (root / "setup0/attributes.json").write_text('{"downsamplingFactors": [[1, 1, 1], [2, 2, 1]]}')
    (root / "setup0/timepoint0/attributes.json").write_text('{"multiScale": true, "resolution": [0.004, 0.005, 0.03]}')
    setup = "<id>0</id><voxelSize><unit>um</unit><size>0.004 0.005 0.03</size></voxelSize>"
    (tmp_path / "em.xml").write_text(f"<SpimData><ViewSetups><ViewSetup>{setup}</ViewSetup></ViewSetups></SpimData>")
    with pytest.raises(
        VolumeError, match=r"2 images; name one with `key`: setup0/timepoint0/s0 .*, setup0/timepoint0/s1"
    ):
        open_source(root)
    for level, expected in ((0, (30, 5, 4)), (1, (30, 10, 8))):
        for place in (f"{root}:/setup0/timepoint0/s{level}", root / f"setup0/timepoint0/s{level}"):
            with open_source(place) as source:
                assert source.info.voxel_size_nm == pytest.approx(expected)
                assert source.info.voxel_size_from == "BigDataViewer's em.xml"
                plane = PIXELS[2, :: level + 1, :: level + 1]
                np.testing.assert_array_equal(source.read(2, EVERYTHING, EVERYTHING), plane)
    with open_source(root, key="setup0/timepoint0") as source:
        assert source.info.key == "setup0/timepoint0/s0"
        assert source.info.voxel_size_nm == pytest.approx((30, 5, 4))


def test_an_n5_level_given_by_its_path_has_its_groups_size(tmp_path):
    n5(tmp_path / "em.n5" / "s1", downsamplingFactors=[2, 2, 1])
    (tmp_path / "em.n5" / "attributes.json").write_text('{"resolution": [4, 5, 30]}')
    for name in (tmp_path / "em.n5" / "s1", f"{tmp_path}/em.n5:/s1"):
        with open_source(name) as source:
            assert source.info.voxel_size_nm == (30, 10, 8)


@pytest.mark.parametrize(
    "compressor",
    [
        {"id": "zstd", "level": 6, "checksum": False},
        {"id": "zstd", "level": 6, "checksum": True},
        {"id": "blosc", "cname": "zstd", "clevel": 3, "shuffle": 1, "blocksize": 0, "typesize": 1},
        {"id": "gzip", "level": 1, "checksum": False},
    ],
    ids=lambda compressor: "-".join(map(str, compressor.values())),
)
def test_keys_that_only_writers_need_do_not_matter_on_a_server(tmp_path, server, compressor):
    known = {name: value for name, value in compressor.items() if name not in ("checksum", "typesize")}
    codec = numcodecs.get_codec(known)
    zarr.create_array(tmp_path / "a.zarr", data=PIXELS, chunks=(4, 32, 32), zarr_format=2, compressors=codec)
    described = json.loads((tmp_path / "a.zarr" / ".zarray").read_text())
    more = {"compressor": compressor, "a_note_of_the_writer": 1}
    (tmp_path / "a.zarr" / ".zarray").write_text(json.dumps(described | more))
    with open_source(f"{server}/a.zarr") as source:
        check(source)


def test_an_address_without_a_volume_is_one_line(tmp_path, server, monkeypatch):
    monkeypatch.setattr(kvstore, "_RETRIES", {"max_retries": 1, "initial_delay": "1ms", "max_delay": "10ms"})
    with pytest.raises(VolumeError, match="holds no Zarr, N5 or"):
        open_source(f"{server}/nothing")
    with pytest.raises(VolumeError, match="cannot be read") as raised:
        open_source("http://127.0.0.1:9/a.zarr")
    assert "\n" not in str(raised.value)


def test_without_tensorstore_the_extra_is_named(tmp_path, monkeypatch):
    path = n5(tmp_path / "a.n5")
    monkeypatch.setitem(sys.modules, "tensorstore", None)
    with pytest.raises(BackendError, match=r"pip install .*tensorstore"):
        open_source(path)

"""Zarr in: OME-Zarr 0.4 and 0.5 made valid by the ecosystem's own library, plain arrays, and links that lead out."""

import json
import os

import numpy as np
import pytest
import zarr
from ome_zarr_models.v04 import Image as Image04
from ome_zarr_models.v05 import Image as Image05

from emsr_fast.errors import UsageError, VolumeError
from emsr_fast.infer.job import infer
from emsr_fast.io.registry import open_source

EVERYTHING = slice(None)
PIXELS = np.random.default_rng(0).integers(0, 255, (7, 50, 70)).astype(np.uint8)


def transforms(*scale, translation=None):
    moved = [{"type": "translation", "translation": list(translation)}] if translation else []
    return [{"type": "scale", "scale": list(scale)}, *moved]


def axes_named(names, unit="nanometer"):
    kinds = {"t": {"type": "time"}, "c": {"type": "channel"}}
    return [{"name": name, **kinds.get(name, {"type": "space", "unit": unit})} for name in names]


def image(path, version, names="zyx", pixels=PIXELS, unit="nanometer", levels=((30.0, 4.0, 4.0), (30.0, 8.0, 8.0)),
          **top):  # fmt: skip
    """Write a multiscale image with zarr-python, valid by ome-zarr-models."""
    lead = pixels.ndim - 3 if pixels.ndim > 3 else 0
    datasets = [
        {"path": f"s{n}", "coordinateTransformations": transforms(*[1.0] * lead, *scale)}
        for n, scale in enumerate(levels)
    ]
    multiscale = {"axes": axes_named(names, unit), "datasets": datasets, "name": "em", **top}
    attributes = {"multiscales": [{**multiscale, "version": "0.4"}]}
    if version == "0.5":
        attributes = {"ome": {"version": "0.5", "multiscales": [multiscale]}}
    group = zarr.create_group(path, zarr_format=3 if version == "0.5" else 2, attributes=attributes)
    for n in range(len(levels)):
        keys = {"dimension_names": list(names)} if version == "0.5" else {"chunk_key_encoding": {"name": "v2"}}
        coarse = pixels[..., :: 2**n, :: 2**n]
        group.create_array(f"s{n}", data=coarse, chunks=(*[1] * lead, 2, 16, 16)[-coarse.ndim :], **keys)
    (Image05 if version == "0.5" else Image04).from_zarr(zarr.open_group(path, mode="r"))
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_both_versions_and_every_level_are_read(tmp_path, version):
    path = image(tmp_path / "a.zarr", version)
    with open_source(path) as source:
        assert source.info.format == f"OME-Zarr {version}"
        assert source.info.key == "s0"
        assert source.info.chunks == (2, 16, 16)
        assert source.info.voxel_size_nm == (30, 4, 4)
        assert "2 levels: s0, s1" in " ".join(source.info.notes)
        for z in range(7):
            np.testing.assert_array_equal(source.read(z, EVERYTHING, EVERYTHING), PIXELS[z])
        np.testing.assert_array_equal(source.read(6, slice(30, 50), slice(13, 69)), PIXELS[6, 30:50, 13:69])
    with open_source(path, key="s1") as source:
        assert source.info.voxel_size_nm == (30, 8, 8)
        np.testing.assert_array_equal(source.read(3, EVERYTHING, EVERYTHING), PIXELS[3, ::2, ::2])
    with pytest.raises(VolumeError, match=r"no image 's7' .* s0 \(7 x 50 x 70 uint8\)"):
        open_source(path, key="s7")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("names", ["tczyx", "czyx", "yx", "xyz", "yxz"])
def test_axes_are_where_the_metadata_say(tmp_path, version, names):
    order = [name for name in names if name in "zyx"]
    pixels = PIXELS[0] if "z" not in names else PIXELS.transpose(["zyx".index(name) for name in order])
    sizes = {"z": 30.0, "y": 4.0, "x": 5.0}
    scale = tuple(sizes[name] for name in order)
    full = pixels.reshape(*[1] * (len(names) - len(order)), *pixels.shape)
    with open_source(image(tmp_path / "a.zarr", version, names, full, levels=(scale,))) as source:
        assert source.shape == (PIXELS.shape if "z" in names else (1, 50, 70))
        assert source.info.voxel_size_nm == (30.0 if "z" in names else None, 4, 5)
        for z in range(source.shape[0]):
            np.testing.assert_array_equal(source.read(z, slice(20, 41), slice(1, 60)), PIXELS[z, 20:41, 1:60])


@pytest.mark.parametrize(
    ("unit", "top", "expected"),
    [
        ("micrometer", {}, (30e3, 4e3, 4e3)),
        ("angstrom", {"coordinateTransformations": transforms(2.0, 1.0, 1.0)}, (6, 0.4, 0.4)),
        ("second", {}, (None, None, None)),
        (None, {}, (None, None, None)),
    ],
)
def test_a_scale_is_a_size_only_with_a_unit_of_length(tmp_path, unit, top, expected):
    with open_source(image(tmp_path / "a.zarr", "0.5", unit=unit, **top)) as source:
        for found, size in zip(source.info.voxel_size_nm, expected, strict=True):
            assert found == (size if size is None else pytest.approx(size))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_plain_array_is_read_with_what_its_attributes_say(tmp_path, zarr_format):
    attributes = {"resolution": [40, 4, 4], "units": ["nm", "nm", "nm"]}
    zarr.create_array(tmp_path / "a.zarr", data=PIXELS, chunks=(4, 32, 32), zarr_format=zarr_format,
                      attributes=attributes)  # fmt: skip
    with open_source(tmp_path / "a.zarr") as source:
        assert source.info.format == f"Zarr v{zarr_format}"
        assert source.info.axes.startswith("ZYX (not named")
        assert source.info.voxel_size_nm == (40, 4, 4)
        np.testing.assert_array_equal(source.read(5, EVERYTHING, EVERYTHING), PIXELS[5])
    with open_source(tmp_path / "a.zarr", axes="yxz") as source:
        assert source.shape == (70, 7, 50)
        np.testing.assert_array_equal(source.read(9, EVERYTHING, EVERYTHING), PIXELS[:, :, 9])


def test_shards_and_dimension_names_of_v3(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", data=PIXELS.T, chunks=(16, 16, 2), shards=(32, 32, 4),
                      dimension_names=["x", "y", "z"])  # fmt: skip
    with open_source(tmp_path / "a.zarr") as source:
        assert source.info.axes == "XYZ"
        assert source.info.chunks == (2, 16, 16)
        np.testing.assert_array_equal(source.read(5, EVERYTHING, EVERYTHING), PIXELS[5])


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_arrays_of_a_group_are_to_be_chosen_from(tmp_path, zarr_format):
    root = zarr.create_group(tmp_path / "a.zarr", zarr_format=zarr_format)
    root.create_group("volumes").create_array("raw", data=PIXELS)
    with open_source(tmp_path / "a.zarr") as source:
        assert source.info.key == "volumes/raw"
    root.create_array("labels", data=PIXELS)
    with pytest.raises(VolumeError, match=r"2 images; name one with `key`: labels \(7 x .*\), volumes/raw"):
        open_source(tmp_path / "a.zarr")
    for name in (f"{tmp_path}/a.zarr:/volumes/raw", tmp_path / "a.zarr" / "volumes" / "raw"):
        with open_source(name) as source:
            np.testing.assert_array_equal(source.read(1, EVERYTHING, EVERYTHING), PIXELS[1])


def test_images_inside_a_collection_are_found(tmp_path):
    zarr.create_group(tmp_path / "a.zarr", attributes={"ome": {"version": "0.5", "bioformats2raw.layout": 3}})
    image(tmp_path / "a.zarr" / "0", "0.5")
    with open_source(tmp_path / "a.zarr") as source:
        assert source.info.key == "0/s0"
        assert source.info.voxel_size_nm == (30, 4, 4)
    image(tmp_path / "a.zarr" / "1", "0.5")
    with pytest.raises(VolumeError, match=r"2 images; .* 0 \(multiscale image\), 1 \(multiscale image\)"):
        open_source(tmp_path / "a.zarr")
    with open_source(tmp_path / "a.zarr", key="1/s1") as source:
        assert source.info.voxel_size_nm == (30, 8, 8)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_level_given_by_its_path_is_described_by_the_folders_above_it(tmp_path, version, monkeypatch):
    path = image(tmp_path / "img.zarr", version)
    for name in (path / "s1", f"{path}:/s1"):
        with open_source(name) as source:
            assert source.info.format == f"OME-Zarr {version}"
            assert source.info.voxel_size_nm == (30, 8, 8)
            np.testing.assert_array_equal(source.read(3, EVERYTHING, EVERYTHING), PIXELS[3, ::2, ::2])
    monkeypatch.chdir(path)
    os.symlink(path / "s1", tmp_path / "link")
    for name in ("s1", tmp_path / "link"):
        with open_source(name) as source:
            assert source.info.voxel_size_nm == (30, 8, 8)
    with pytest.raises(UsageError, match="a mismatch of"):
        infer(path / "s1", tmp_path / "out.zarr")
    with open_source(path / "s1", axes="zyx") as source:
        assert source.info.voxel_size_nm == (None, None, None)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_level_in_nested_groups_is_found_from_anywhere(tmp_path, version):
    zarr_format = 2 if version == "0.4" else 3
    multiscale = {"axes": axes_named("zyx"), "datasets": [
        {"path": "scales/fine/s0", "coordinateTransformations": transforms(30.0, 4.0, 4.0)}
    ]}  # fmt: skip
    attributes = {"multiscales": [{**multiscale, "version": "0.4"}]}
    if version == "0.5":
        attributes = {"ome": {"version": "0.5", "multiscales": [multiscale]}}
    root = zarr.create_group(tmp_path / "plate.zarr", zarr_format=zarr_format)
    em = root.create_group("A/em", attributes=attributes)
    em.create_group("scales/fine").create_array("s0", data=PIXELS, chunks=(2, 16, 16))
    em.create_array("other", data=PIXELS, chunks=(2, 16, 16))
    place = ["A", "em", "scales", "fine", "s0"]
    for depth in range(len(place) + 1):
        folder, key = tmp_path.joinpath("plate.zarr", *place[:depth]), "/".join(place[depth:])
        with open_source(folder, key=key or None) as source:
            assert source.info.voxel_size_nm == (30, 4, 4)
    with open_source(tmp_path / "plate.zarr" / "A" / "em" / "other") as source:
        assert source.info.voxel_size_nm == (None, None, None)


def test_metadata_above_that_list_the_level_must_be_valid_and_others_need_not(tmp_path):
    path = image(tmp_path / "outer" / "img.zarr", "0.4")
    (tmp_path / "outer" / ".zattrs").write_text('{"multiscales": [{"version": "0.4", "datasets": [{"path": "x"}]}]}')
    with open_source(path / "s0") as source:
        assert source.info.voxel_size_nm == (30, 4, 4)
    (path / ".zattrs").write_text('{"multiscales": [{"version": "0.4", "datasets": [{"path": "s0"}]}]}')
    with pytest.raises(VolumeError, match="is not valid OME-Zarr"):
        open_source(path / "s0")
    (path / ".zattrs").write_text("{")
    with pytest.raises(VolumeError, match=r"zattrs is not JSON.*`axes`"):
        open_source(path / "s0")


@pytest.mark.parametrize(
    ("ome", "message"),
    [
        ({"multiscales": [{"axes": axes_named("zyx"), "datasets": []}]}, "datasets"),
        ({"multiscales": [{"axes": axes_named("zyx"), "datasets": [{"path": "0"}]}]}, "coordinateTransformations"),
        ({"multiscales": "?"}, "not a list of images"),
        ({"version": "9.9", "multiscales": [{}]}, "OME-Zarr 9.9"),
        (
            {
                "multiscales": [
                    {"axes": axes_named("zyx"), "datasets": [
                        {"path": "../b", "coordinateTransformations": transforms(1.0, 1.0, 1.0)}
                    ]}
                ]
            },
            "leads out of it",
        ),
    ],
)  # fmt: skip
def test_metadata_that_are_not_valid_are_refused_unless_array_and_axes_are_named(tmp_path, ome, message):
    group = zarr.create_group(tmp_path / "a.zarr", attributes={"ome": ome})
    group.create_array("0", data=PIXELS)
    with pytest.raises(VolumeError, match=message):
        open_source(tmp_path / "a.zarr")
    with open_source(tmp_path / "a.zarr", key="0", axes="ZYX") as source:
        np.testing.assert_array_equal(source.read(1, EVERYTHING, EVERYTHING), PIXELS[1])


@pytest.mark.parametrize("key", ["../b.zarr", "s0/../../b.zarr", "..\\b"])
def test_a_key_cannot_lead_out_of_the_folder(tmp_path, key):
    image(tmp_path / "a.zarr", "0.5")
    zarr.create_array(tmp_path / "b.zarr", data=PIXELS)
    with pytest.raises(VolumeError, match="leads out of"):
        open_source(tmp_path / "a.zarr", key=key)


def test_a_link_cannot_lead_out_of_the_folder(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(range(256)) * 256)
    path = tmp_path / "a.zarr"
    zarr.create_array(path, data=PIXELS, chunks=(7, 50, 70), compressors=None, filters=None)
    chunk = path / "c" / "0" / "0" / "0"
    pixels = chunk.read_bytes()
    chunk.unlink()
    os.symlink(secret, chunk)
    with open_source(path) as source, pytest.raises(VolumeError, match="leads out of the volume"):
        source.read(0, EVERYTHING, EVERYTHING)
    os.symlink(tmp_path / "a.zarr", tmp_path / "link.zarr")  # the volume itself may be a link
    chunk.unlink()
    chunk.write_bytes(pixels)
    with open_source(tmp_path / "link.zarr") as source:
        np.testing.assert_array_equal(source.read(0, EVERYTHING, EVERYTHING), PIXELS[0])


def test_a_chunk_larger_than_memory_is_refused_before_it_is_read(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", data=np.ones((1, 90, 90), "u1"), chunks=(1, 9, 9))
    described = json.loads((tmp_path / "a.zarr" / "zarr.json").read_text())
    described["shape"] = described["chunk_grid"]["configuration"]["chunk_shape"] = [1, 2**20, 2**20]
    (tmp_path / "a.zarr" / "zarr.json").write_text(json.dumps(described))
    with pytest.raises(VolumeError, match="smaller chunks"):
        open_source(tmp_path / "a.zarr")


def test_a_sparse_volume_reads_as_its_fill_value(tmp_path):
    path = tmp_path / "a.zarr"
    array = zarr.create_array(path, shape=(10**5,) * 3, chunks=(8, 256, 256), dtype="u1", fill_value=7)
    array[0, 0, 0] = 1
    with open_source(path) as source:
        assert "1911012499 of 1911012500 chunks are not stored: read as the fill value 7" in source.info.notes
        assert (source.read(99_999, slice(99_000, 99_300), slice(0, 300)) == 7).all()


def test_neighbouring_reads_decode_a_chunk_once(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", data=PIXELS, chunks=(7, 50, 70))
    with open_source(tmp_path / "a.zarr") as source:
        source.read(0, slice(0, 9), slice(0, 9))
        for chunk in (tmp_path / "a.zarr" / "c").rglob("0"):
            if chunk.is_file():
                chunk.unlink()
        np.testing.assert_array_equal(source.read(6, slice(30, 40), slice(20, 70)), PIXELS[6, 30:40, 20:])

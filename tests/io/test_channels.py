"""Several detectors in one file: ``channel`` says which one, in every format that has an axis for it."""

import h5py
import numpy as np
import pytest
import scipy.io
import tifffile
import zarr

from emsr_fast.errors import UsageError, VolumeError
from emsr_fast.io.axes import NoChannelsError
from emsr_fast.io.registry import open_source

EVERYTHING = slice(None)
STACKS = np.random.default_rng(0).integers(1, 255, (2, 4, 20, 24)).astype(np.uint8)  # C, Z, Y, X


def in_tiff(path, axes, **options):
    order = ["CZYX".index(name) for name in axes]
    tifffile.imwrite(path, STACKS.transpose(order), metadata={"axes": axes, **options.pop("metadata", {})}, **options)


def in_ome_zarr(path, version):
    axes = [{"name": "c", "type": "channel"}, *({"name": name, "type": "space", "unit": "nanometer"} for name in "zyx")]
    scale = [{"type": "scale", "scale": [1, 50, 24, 24]}]
    image = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    attributes = {"multiscales": [{**image, "version": "0.4"}]}
    if version == 3:
        attributes = {"ome": {"version": "0.5", "multiscales": [image]}}
    group = zarr.create_group(path, zarr_format=version, attributes=attributes)
    group.create_array("0", data=STACKS, chunks=(1, 2, 16, 16))


def in_zarr_with_names(path):
    zarr.create_array(path, data=STACKS.transpose(1, 0, 2, 3), dimension_names=["z", "c", "y", "x"], zarr_format=3)


def in_hdf5(path, names):
    with h5py.File(path, "w") as file:
        data = file.create_dataset("raw", data=STACKS, chunks=(1, 2, 16, 16))
        for dimension, name in zip(data.dims, names, strict=False):
            dimension.label = name


def in_imaris(path):
    with h5py.File(path, "w") as file:
        for channel, stack in enumerate(STACKS):
            group = file.create_group(f"DataSet/ResolutionLevel 0/TimePoint 0/Channel {channel}")
            group.create_dataset("Data", data=stack)
            group.attrs.update({f"ImageSize{axis}": str(side) for axis, side in zip("ZYX", stack.shape, strict=True)})
        file.create_group("DataSetInfo/Image")


def in_tensorstore(path, driver):
    tensorstore = pytest.importorskip("tensorstore")
    spec = {"driver": driver, "kvstore": {"driver": "file", "path": str(path)}, "create": True}
    if driver == "n5":
        metadata = {"dimensions": [24, 20, 4, 2], "blockSize": [16, 16, 4, 1], "dataType": "uint8",
                    "compression": {"type": "raw"}, "axes": ["x", "y", "z", "c"]}  # fmt: skip
        tensorstore.open({**spec, "metadata": metadata}).result()[...] = STACKS.transpose()
        return
    spec |= {"multiscale_metadata": {"type": "image", "data_type": "uint8", "num_channels": 2},
             "scale_metadata": {"size": [24, 20, 4], "encoding": "raw", "chunk_size": [16, 16, 4],
                                "resolution": [8, 8, 33]}}  # fmt: skip
    tensorstore.open(spec).result()[...] = STACKS.transpose(3, 2, 1, 0)


FILES = {
    "imagej.tif": lambda path: in_tiff(path, "ZCYX", imagej=True),
    "plain.tif": lambda path: in_tiff(path, "CZYX", photometric="minisblack"),
    "one_page_entry.tif": lambda path: in_tiff(path, "ZCYX", photometric="minisblack", metadata={"truncate": True}),
    "a.ome.tif": lambda path: in_tiff(path, "CZYX", photometric="minisblack"),
    "z_first.ome.tif": lambda path: in_tiff(path, "ZCYX", photometric="minisblack"),
    "v2.zarr": lambda path: in_ome_zarr(path, 2),
    "v3.zarr": lambda path: in_ome_zarr(path, 3),
    "named.zarr": in_zarr_with_names,
    "named.h5": lambda path: in_hdf5(path, "czyx"),
    "a.ims": in_imaris,
    "a.n5": lambda path: in_tensorstore(path, "n5"),
    "precomputed": lambda path: in_tensorstore(path, "neuroglancer_precomputed"),
}


@pytest.mark.parametrize("name", FILES)
def test_each_channel_is_read_by_its_number(tmp_path, name):
    FILES[name](tmp_path / name)
    for channel, expected in enumerate(STACKS):
        with open_source(tmp_path / name, channel=channel) as source:
            assert source.shape == expected.shape
            for z in (3, 0):
                np.testing.assert_array_equal(source.read(z, slice(2, 19), EVERYTHING), expected[z, 2:19])


@pytest.mark.parametrize("name", [name for name in FILES if name != "a.ims"])
def test_without_a_number_or_with_a_wrong_one_it_is_asked_for(tmp_path, name):
    FILES[name](tmp_path / name)
    with pytest.raises(VolumeError, match="has 2 channels; name one with `channel`, 0 to 1"):
        open_source(tmp_path / name)
    for wrong in (2, -1):
        with pytest.raises(UsageError, match=f"channel {wrong}: .* has 2, 0 to 1"):
            open_source(tmp_path / name, channel=wrong)


def test_an_imaris_file_asks_for_one_of_its_images_or_channels(tmp_path):
    in_imaris(tmp_path / "a.ims")
    with pytest.raises(VolumeError, match=r"has 2 images; name one .*Channel 0/Data"):
        open_source(tmp_path / "a.ims")
    with pytest.raises(UsageError, match="has channels 0, 1"):
        open_source(tmp_path / "a.ims", channel=2)
    with pytest.raises(UsageError, match="is channel 0; give one of them"):
        open_source(f"{tmp_path}/a.ims:/DataSet/ResolutionLevel 0/TimePoint 0/Channel 0/Data", channel=1)


@pytest.mark.parametrize("name", ["unnamed.h5", "unnamed.zarr", "unnamed.mat", "unnamed.tif"])
def test_axes_without_names_are_named_first(tmp_path, name):
    path, axes = tmp_path / name, "CZYX"
    if name.endswith("h5"):
        in_hdf5(path, "")
    elif name.endswith("zarr"):
        zarr.create_array(path, data=STACKS)
    elif name.endswith("mat"):
        axes = "YXZC"
        scipy.io.savemat(path, {"v": STACKS.transpose(2, 3, 1, 0)})
    else:
        tifffile.imwrite(path, STACKS, photometric="minisblack")
    with pytest.raises((VolumeError, UsageError)):
        open_source(path, channel=1)
    with open_source(path, axes=axes, channel=1) as source:
        np.testing.assert_array_equal(source.read(2, EVERYTHING, EVERYTHING), STACKS[1, 2])


def test_a_volume_without_channels_has_none_to_choose(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STACKS[0], photometric="minisblack")
    zarr.create_array(tmp_path / "a.zarr", data=STACKS[0])
    (tmp_path / "folder").mkdir()
    tifffile.imwrite(tmp_path / "folder" / "0.tif", STACKS[0, 0], photometric="minisblack")
    for name in ("a.tif", "a.zarr", "folder"):
        with pytest.raises(NoChannelsError, match=r"has no axis C .*; leave `channel` out"):
            open_source(tmp_path / name, channel=0)


@pytest.mark.parametrize("channel", [None, 0, 2])
def test_colours_stay_refused(tmp_path, channel):
    tifffile.imwrite(tmp_path / "rgb.tif", np.arange(243, dtype="u1").reshape(9, 9, 3), photometric="rgb")
    with pytest.raises((VolumeError, NoChannelsError), match=r"convert it to grey|has no axis C"):
        open_source(tmp_path / "rgb.tif", channel=channel)


def test_many_channels_are_slices_unless_one_is_asked_for(tmp_path):
    pixels = np.arange(12 * 8 * 9, dtype=np.uint16).reshape(12, 8, 9)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", metadata={"axes": "CYX"})
    with open_source(tmp_path / "a.tif") as source:
        assert source.shape == (12, 8, 9)
    with open_source(tmp_path / "a.tif", channel=7) as source:
        assert source.shape == (1, 8, 9)
        np.testing.assert_array_equal(source.read(0, EVERYTHING, EVERYTHING), pixels[7])

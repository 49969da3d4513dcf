"""Pixels without a sign in files whose type has one, and sizes in the unit that a file names for each axis."""

import struct

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile
import zarr

from emsr_fast.errors import VolumeError
from emsr_fast.io.registry import open_source
from emsr_fast.io.voxels import UNKNOWN

EVERYTHING = slice(None)


def ramp(dtype):
    """All values of an integer dtype without a sign, or as many as fit, (2, 16, 16)."""
    return np.linspace(0, np.iinfo(dtype).max, 512).round().astype(dtype).reshape(2, 16, 16)


def mrc(path, pixels, low, high, mark=b""):
    with mrcfile.new(path) as file:
        file.set_data(pixels)
        file.header.dmin, file.header.dmax = low, high
    raw = bytearray(path.read_bytes())
    raw[152 : 152 + len(mark)] = mark
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_an_mrc_whose_header_shows_values_beyond_the_signed_type_has_no_sign(tmp_path, dtype):
    pixels = ramp(dtype)
    signed = np.dtype(f"i{pixels.itemsize}")
    path = mrc(tmp_path / "a.mrc", pixels.view(signed), 0, float(pixels.max()))
    with open_source(path) as source:
        assert source.dtype == dtype
        assert (source.read(1, EVERYTHING, EVERYTHING) == pixels[1]).all()
        largest = pixels.max()
        assert f"its header has values from 0 to {largest}, which {signed} cannot hold: read as {np.dtype(dtype)}" in (
            source.info.notes
        )


@pytest.mark.parametrize(
    ("low", "high"),
    [(-128, 127), (0, 127), (0, -1), (float("nan"), float("nan")), (-3, 200), (0, 1000)],
)
def test_an_mrc_whose_header_does_not_show_it_is_signed_as_the_standard_says(tmp_path, low, high):
    pixels = ramp(np.uint8).view(np.int8)
    with open_source(mrc(tmp_path / "a.mrc", pixels, low, high)) as source:
        assert source.dtype == np.int8
        assert (source.read(1, EVERYTHING, EVERYTHING) == pixels[1]).all()


def picture(low, high):
    """A smooth image with values from ``low`` to ``high`` and all between, (2, 64, 64) int64."""
    rows, cols = np.mgrid[:64, :64]
    waves = np.sin(rows / 9) * np.cos(cols / 7)
    return np.stack([np.rint(low + (high - low) * (waves + 1) / 2)] * 2).astype(int)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 0), (0, -1), (float("nan"), float("nan")), (-128, 127), (0, 1), (0, 256)]
)
def test_bytes_that_a_sign_would_tear_apart_have_none_whatever_the_header_says(tmp_path, low, high):
    pixels = picture(30, 225).astype(np.uint8)
    with open_source(mrc(tmp_path / "a.mrc", pixels.view(np.int8), low, high)) as source:
        assert source.dtype == np.uint8
        assert (source.read(1, EVERYTHING, EVERYTHING) == pixels[1]).all()
        assert "both ends of their range and not around 0: read as uint8" in " ".join(source.info.notes)


@pytest.mark.parametrize(("least", "most", "dtype"), [(5000, 60000, "u2"), (-9000, 9000, "i2"), (0, 4095, "i2")])
def test_int16_is_judged_by_itself_too(tmp_path, least, most, dtype):
    pixels = picture(least, most).astype(dtype)
    with open_source(mrc(tmp_path / "a.mrc", pixels.view("i2"), 0, 0)) as source:
        assert source.dtype == dtype
        assert (source.read(1, EVERYTHING, EVERYTHING) == pixels[1]).all()
        assert ("read as uint16" in " ".join(source.info.notes)) == (dtype == "u2")


@pytest.mark.parametrize(
    ("least", "most", "low", "high", "noted"),
    [
        (-90, 90, 0, 0, False),  # the bytes show the sign
        (-120, -40, 0, 0, True),
        (-120, -40, -120, -40, False),  # the header shows it
        (0, 120, 0, 0, False),  # the same with and without
        (-128, 127, 0, 0, True),
    ],
)
def test_where_neither_header_nor_bytes_show_a_sign_that_is_said(tmp_path, least, most, low, high, noted):
    pixels = picture(least, most).astype(np.int8)
    with open_source(mrc(tmp_path / "a.mrc", pixels, low, high)) as source:
        assert source.dtype == np.int8
        assert (source.read(1, EVERYTHING, EVERYTHING) == pixels[1]).all()
        told = "the header does not say whether bytes have a sign: read as int8" in source.info.notes
        assert told == noted


def test_imods_mark_goes_before_the_headers_values(tmp_path):
    mark = struct.pack("<ii", 1146047817, 1)
    with open_source(mrc(tmp_path / "a.mrc", ramp(np.uint8).view(np.int8), 0, 255, mark)) as source:
        assert source.dtype == np.int8


def test_imods_bytes_of_two_pixels_each_are_refused(tmp_path):
    mark = struct.pack("<ii", 1146047817, 16)
    with pytest.raises(VolumeError, match="two pixels of 4 bits in each byte"):
        open_source(mrc(tmp_path / "a.mrc", ramp(np.uint8).view(np.int8), 0, 255, mark))


SPIM = """<?xml version="1.0"?><SpimData version="0.2"><SequenceDescription><ViewSetups><ViewSetup><id>0</id>
<size>16 16 2</size><voxelSize><unit>{unit}</unit><size>0.004 0.005 0.04</size></voxelSize></ViewSetup></ViewSetups>
</SequenceDescription></SpimData>"""


@pytest.fixture
def bdv(tmp_path):
    """A BigDataViewer file of two levels: uint16 in a type with a sign."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["s00/resolutions"] = np.array([[1, 1, 1], [2, 2, 1]], float)
        file["s00/subdivisions"] = np.array([[16, 16, 2], [8, 8, 2]], np.int32)
        for level, step in ((0, 1), (1, 2)):
            pixels = ramp(np.uint16)[:, ::step, ::step].view(np.int16)
            file.create_dataset(f"t00000/s00/{level}/cells", data=pixels, chunks=pixels.shape)
    return tmp_path / "a.h5"


def test_bigdataviewers_int16_stands_for_uint16(bdv):
    with open_source(f"{bdv}:/t00000/s00/0/cells") as source:
        assert source.dtype == np.uint16
        assert (source.read(1, EVERYTHING, EVERYTHING) == ramp(np.uint16)[1]).all()
        assert "BigDataViewer's int16 stands for uint16: read as uint16" in source.info.notes
        assert source.info.voxel_size_nm == UNKNOWN
        assert "BigDataViewer keeps it in a.xml, which is not beside the file" in source.info.voxel_size_from
    with pytest.raises(VolumeError, match="has 2 images; name one with `key`"):
        open_source(bdv)


def test_bigdataviewers_voxel_size_is_in_the_xml_beside_it_and_grows_with_the_level(bdv):
    bdv.with_suffix(".xml").write_text(SPIM.format(unit="um"))
    with open_source(bdv, "t00000/s00/0/cells") as source:
        assert source.info.voxel_size_nm == pytest.approx((40, 5, 4))
        assert source.info.voxel_size_from == "BigDataViewer's a.xml"
    with open_source(bdv, "t00000/s00/1/cells") as source:
        assert source.info.voxel_size_nm == pytest.approx((40, 10, 8))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (SPIM.format(unit="pixel"), "voxel size z in a.xml ignored: 0.04 pixel is not a length"),
        ("<a", "a.xml states none that can be read (ParseError"),
        ("<a/>", "a.xml states none that can be read (KeyError"),
    ],
)
def test_an_xml_without_a_length_is_said(bdv, text, told):
    bdv.with_suffix(".xml").write_text(text)
    with open_source(bdv, "t00000/s00/0/cells") as source:
        assert source.info.voxel_size_nm == UNKNOWN
        assert any(told in words for words in (source.info.voxel_size_from, *source.info.notes))


def test_int16_of_other_hdf5_files_keeps_its_sign(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["t00000/s00/0/cells"] = ramp(np.uint16).view(np.int16)
    with open_source(tmp_path / "a.h5") as source:
        assert source.dtype == np.int16


@pytest.mark.parametrize(
    ("metadata", "expected", "note"),
    [
        ({"unit": "um", "zunit": "nm", "spacing": 50}, (50, 5, 4), None),
        ({"unit": "um", "yunit": "nm", "spacing": 0.05}, (50, 0.005, 4), None),
        ({"unit": "um", "zunit": "sec", "spacing": 2}, (None, 5, 4), "unit 'sec' is not a length"),
        ({"unit": "pixel", "zunit": "nm", "spacing": 50}, (50, None, None), None),
        ({"unit": "um", "spacing": -0.05}, (50, 5, 4), "spacing is negative (-0.05 um): its amount is taken"),
    ],
)
def test_imagej_may_have_a_unit_for_each_axis_and_a_negative_spacing(tmp_path, metadata, expected, note):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp(np.uint8), imagej=True, resolution=(250, 200), metadata={"axes": "ZYX", **metadata})
    with open_source(path) as source:
        found = source.info.voxel_size_nm
        assert [side is None for side in found] == [side is None for side in expected]
        assert [s for s in found if s is not None] == pytest.approx([s for s in expected if s is not None], rel=1e-6)
        told = [one for one in source.info.notes if "ImageJ" in one]
        assert len(told) == (note is not None)
        assert note is None or note in told[0]


def test_a_negative_size_in_ome_metadata_gives_its_amount(tmp_path):
    path = tmp_path / "a.ome.tif"
    sizes = {"PhysicalSizeZ": -50.0, "PhysicalSizeZUnit": "nm", "PhysicalSizeY": 5.0, "PhysicalSizeYUnit": "nm"}
    tifffile.imwrite(path, ramp(np.uint8), photometric="minisblack", metadata={"axes": "ZYX", **sizes})
    with open_source(path) as source:
        assert source.info.voxel_size_nm == (50, 5, None)
        assert "OME PhysicalSizeZ is negative (-50.0 nm): its amount is taken" in source.info.notes


@pytest.mark.parametrize(
    ("attributes", "expected", "origin"),
    [
        ({"resolution": [0.04, 0.005, 0.004], "unit": "um"}, (40, 5, 4), "attribute resolution"),
        ({"resolution": [0.04, 0.005, 0.004], "unit": np.bytes_("um")}, (40, 5, 4), "attribute resolution"),
        ({"resolution": [40, 5, 4], "units": np.array([b"nm"] * 3)}, (40, 5, 4), "attribute resolution"),
        ({"resolution": [40, 0.005, 4], "units": ["nm", "um", "nm"]}, (40, 5, 4), "attribute resolution"),
        ({"resolution": [40, 5, 4]}, (40, 5, 4), "attribute resolution, meant in nm"),
        (
            {"voxel_size": [1, 1, 1], "unit": "voxel"},
            UNKNOWN,
            "attribute voxel_size ignored: unit 'voxel' is not a length",
        ),
        (
            {"resolution": [-40, 5, 4]},
            (40, 5, 4),
            "attribute resolution, meant in nm; the amount, since it is negative",
        ),
    ],
)
def test_attributes_of_hdf5_have_their_unit_as_one_or_as_several(tmp_path, attributes, expected, origin):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = ramp(np.uint8)
        file["raw"].attrs.update(attributes)
    with open_source(tmp_path / "a.h5") as source:
        assert source.info.voxel_size_nm == (pytest.approx(expected) if expected != UNKNOWN else UNKNOWN)
        assert source.info.voxel_size_from == origin


def test_attributes_of_zarr_that_are_no_length_say_so(tmp_path):
    attributes = {"resolution": [1, 1, 1], "units": ["pixel"] * 3}
    zarr.create_array(tmp_path / "a.zarr", data=ramp(np.uint8), attributes=attributes)
    with open_source(tmp_path / "a.zarr") as source:
        assert source.info.voxel_size_nm == UNKNOWN
        assert source.info.voxel_size_from == "attribute resolution ignored: unit 'pixel' is not a length"


@pytest.mark.parametrize(
    ("unit", "size"), [("micrometer", 0.02), ("angstrom", 200), ("picometer", 2e4), ("meter", 2e-8)]
)
def test_ome_zarr_scales_are_in_the_unit_of_their_axis(tmp_path, unit, size):
    axes = [{"name": name, "type": "space", "unit": unit if name == "y" else "nanometer"} for name in "zyx"]
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [50, size, -4]}]}]
    attributes = {"ome": {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}}
    group = zarr.create_group(tmp_path / "a.zarr", attributes=attributes)
    group.create_array("0", data=ramp(np.uint8))
    with open_source(tmp_path / "a.zarr") as source:
        assert source.info.voxel_size_nm == pytest.approx((50, 20, 4))
        assert "scale of axis X is negative (-4.0 nanometer): its amount is taken" in source.info.notes


def test_a_negative_mrc_cell_gives_its_amount(tmp_path):
    path = tmp_path / "a.mrc"
    with mrcfile.new(path) as file:
        file.set_data(ramp(np.uint16))
        file.voxel_size = (40, 50, 300)
        file.header.cella.z *= -1
    with open_source(path) as source:
        assert source.info.voxel_size_nm == (30, 5, 4)
        assert "cell along z is negative (-300.0 angstrom): its amount is taken" in source.info.notes


def image_of(path, size):
    transforms = [{"type": "scale", "scale": [30, size, size]}]
    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
    return {"version": "0.4", "axes": axes, "datasets": [{"path": path, "coordinateTransformations": transforms}]}


def group_of(path, *images):
    group = zarr.open_group(path, mode="w", zarr_format=2)
    for name in ("0", "b"):
        group.create_array(name, data=ramp(np.uint8), chunks=(2, 16, 16))
    group.attrs["multiscales"] = list(images)
    return path


@pytest.mark.parametrize("written", ["./0", "0/", "0"])
@pytest.mark.parametrize("asked", ["", "/0", ":/0"])
def test_levels_are_found_however_their_path_is_written(tmp_path, written, asked):
    path = group_of(tmp_path / "a.zarr", image_of(written, 4))
    with open_source(f"{path}{asked}") as source:
        assert source.info.voxel_size_nm == (30, 4, 4)


@pytest.mark.parametrize("asked", ["/b", ":/b"])
def test_a_level_of_the_second_multiscale_image_has_the_size_stated_there(tmp_path, asked):
    path = group_of(tmp_path / "a.zarr", image_of("0", 24), image_of("b", 4))
    with open_source(f"{path}{asked}") as source:
        assert source.info.voxel_size_nm == (30, 4, 4)
        assert "number 2 of 2 multiscale images" in source.info.notes

"""What infer says of its output before it writes: the dtype that the format really gets, the place of a region."""

import json
import struct
from xml.etree import ElementTree

import mrcfile
import numpy as np
import pytest
import tifffile
import zarr

from emsr_fast.cli import main
from emsr_fast.errors import VolumeError
from emsr_fast.infer import job
from emsr_fast.io.provenance import read_provenance
from emsr_fast.io.registry import open_source
from emsr_fast.io.voxels import UNKNOWN


@pytest.fixture
def stack(tmp_path):
    """Four slices, 24 x 32 px of 30 nm, 50 nm apart."""
    pixels = np.random.default_rng(0).integers(0, 255, (4, 24, 32)).astype(np.uint8)
    sizes = {"PhysicalSizeX": 0.03, "PhysicalSizeY": 0.03, "PhysicalSizeZ": 0.05}
    path = tmp_path / "in.ome.tif"
    tifffile.imwrite(path, pixels, photometric="minisblack", metadata={"axes": "ZYX", **sizes})
    return path


PLACE = ("TheZ", "PositionZ", "PositionY", "PositionX")


def planes_of(path):
    with tifffile.TiffFile(path) as file:
        root = ElementTree.fromstring(file.ome_metadata)
    return [plane.attrib for plane in root.iterfind(".//{*}Plane")]


def infer(stack, output, *options):
    return main(["infer", str(stack), "-o", str(output), "--device", "cpu", *options])


def test_an_mrc_output_says_the_dtype_it_gets(stack, tmp_path, capsys):
    output = tmp_path / "out.mrc"
    assert infer(stack, output, "--slices", "0:1", "--json") == 0
    told = capsys.readouterr()
    assert "1 x 72 x 96 (Z, Y, X), uint16, voxel size" in told.err
    assert "note    MRC has no uint8: the same values are written as uint16" in told.err
    assert json.loads(told.out)["dtype"] == "uint16"
    with mrcfile.open(output) as file:
        assert file.data.dtype == np.uint16
        assert file.data.max() <= 255


def test_the_space_that_an_mrc_needs_is_that_of_its_own_dtype(stack, tmp_path, monkeypatch):
    asked = []

    def check_space(path, needed):
        asked.append(needed)
        raise VolumeError("stop here")

    monkeypatch.setattr(job, "check_space", check_space)
    assert infer(stack, tmp_path / "out.mrc", "--slices", "0:1") == 3
    assert asked == [72 * 96 * 2]


# slice 1, row 6, column 8 are at 50, 180 and 240 nm; the first HR pixel's centre lies 10 nm before that of its LR pixel
ROI, POSITION = "1,6,8:3,18,24", (50.0, 170.0, 230.0)


@pytest.mark.parametrize("suffix", [".ome.tif", ".mrc"])
def test_the_place_of_a_region_is_kept_and_read_back(stack, tmp_path, capsys, suffix):
    output = tmp_path / f"out{suffix}"
    assert infer(stack, output, "--roi", ROI) == 0
    with open_source(output) as source:
        assert source.info.position_nm == POSITION
        assert source.info.voxel_size_nm == (50, 10, 10)
    assert main(["inspect", str(output)]) == 0
    assert "place   50, 170, 230 nm (z, y, x), the first voxel's centre" in capsys.readouterr().out


def test_every_plane_of_an_ome_tiff_has_its_place_in_nm(stack, tmp_path):
    assert infer(stack, tmp_path / "out.ome.tif", "--roi", ROI) == 0
    planes = planes_of(tmp_path / "out.ome.tif")
    found = [tuple(float(plane[name]) for name in PLACE) for plane in planes]
    assert found == [(0, 50.0, 170.0, 230.0), (1, 100.0, 170.0, 230.0)]
    assert {plane[f"Position{axis}Unit"] for plane in planes for axis in "XYZ"} == {"nm"}


def test_the_places_of_a_tiff_an_mrc_and_an_ome_zarr_agree(stack, tmp_path):
    assert infer(stack, tmp_path / "out.ome.zarr", "--roi", ROI) == 0
    group = zarr.open_group(tmp_path / "out.ome.zarr", mode="r")
    _, translation = group.attrs["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    assert tuple(translation["translation"]) == POSITION


def test_an_mrc_of_unknown_size_has_its_place_in_voxels(stack, tmp_path):
    pixels = tifffile.imread(stack)
    tifffile.imwrite(tmp_path / "plain.tif", pixels, photometric="minisblack")
    assert infer(tmp_path / "plain.tif", tmp_path / "out.mrc", "--roi", ROI) == 0
    with mrcfile.open(tmp_path / "out.mrc") as file:
        header = file.header
        assert (header.nzstart, header.nystart, header.nxstart) == (1, 18, 24)
        assert (header.origin.z, header.origin.y, header.origin.x) == (0, 0, 0)
    with open_source(tmp_path / "out.mrc") as source:
        assert source.info.position_nm == UNKNOWN


def test_a_tiff_of_unknown_size_has_its_place_in_voxels_of_the_input(stack, tmp_path):
    tifffile.imwrite(tmp_path / "plain.tif", tifffile.imread(stack), photometric="minisblack")
    assert infer(tmp_path / "plain.tif", tmp_path / "out.ome.tif", "--roi", ROI) == 0
    first, _ = planes_of(tmp_path / "out.ome.tif")
    assert [float(first[name]) for name in PLACE] == pytest.approx((0, 1, 6 - 1 / 3, 8 - 1 / 3))
    assert {first[f"Position{axis}Unit"] for axis in "XYZ"} == {"reference frame"}
    with open_source(tmp_path / "out.ome.tif") as source:
        assert source.info.position_nm == UNKNOWN


@pytest.mark.parametrize("suffix", [".ome.zarr", ".ome.tif", ".h5"])
def test_which_part_of_the_input_an_output_is_can_be_read_back(stack, tmp_path, suffix):
    assert infer(stack, tmp_path / f"out{suffix}", "--roi", ROI) == 0
    made = read_provenance(tmp_path / f"out{suffix}")
    assert (made.slices, made.rows, made.columns, made.scale) == ((1, 3), (6, 18), (8, 24), 3)


def test_the_position_that_a_microscope_wrote_is_shown_in_nm(tmp_path):
    path = tmp_path / "a.ome.tif"
    plane = {"PositionX": [1.5], "PositionXUnit": ["mm"], "PositionY": [-20.0], "PositionYUnit": ["\u00b5m"]}
    tifffile.imwrite(path, np.zeros((8, 9), np.uint8), metadata={"axes": "YX", "Plane": plane})
    with open_source(path) as source:
        assert source.info.position_nm == (None, -20_000, 1_500_000)


@pytest.mark.parametrize(("mark", "sign"), [(b"", 1), (struct.pack("<ii", 1146047817, 1 | 4), -1)])
def test_an_mrc_origin_is_inverted_where_imod_says_so(tmp_path, mark, sign):
    path = tmp_path / "a.mrc"
    with mrcfile.new(path) as file:
        file.set_data(np.zeros((2, 8, 9), np.int8))
        file.header.origin.x, file.header.origin.z = 46, -500
    raw = bytearray(path.read_bytes())
    raw[152 : 152 + len(mark)] = mark
    path.write_bytes(raw)
    with open_source(path) as source:
        assert source.info.position_nm == (sign * -50, 0, sign * 4.6)

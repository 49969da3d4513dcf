"""What the napari plugin reads, writes and computes, without napari."""

import re
from importlib import resources

import numpy as np
import pytest
import tifffile
import yaml
import zarr

from emsr_fast.engine import TorchEngine
from emsr_fast.errors import EmsrError, UsageError, VolumeError
from emsr_fast.infer.array import ArrayVolume
from emsr_fast.infer.job import infer
from emsr_fast.io.formats import FORMATS
from emsr_fast.io.intensity import Normalisation, dtype_range
from emsr_fast.io.registry import open_source
from emsr_fast.model import load_model
from emsr_fast.napari.layers import described_file
from emsr_fast.napari.placement import Placement, placement_of
from emsr_fast.napari.reader import get_reader, read_layers
from emsr_fast.napari.region import Region, super_resolve_region, visible_region
from emsr_fast.napari.writer import write_image
from emsr_fast.trust.maps import Trust
from vendor_tiffs import ROWS, fei_ini, pixels, vendor_tiff

PART = {"roi": "3,5,9:5,50,62", "input_voxel": "ignore"}


def world(layer, index):
    """World coordinates of the centre of pixel ``index``."""
    return np.multiply(layer["scale"], index) + layer["translate"]


def test_a_stack_is_read_lazily_where_its_file_puts_it(stack):
    assert get_reader([str(stack), str(stack)]) is None
    ((data, options, kind),) = get_reader(str(stack))(str(stack))
    assert (kind, data.shape, data.dtype) == ("image", (48, 192, 192), np.uint8)
    assert data.chunksize == (1, 192, 192)
    np.testing.assert_array_equal(np.asarray(data[7:9, 3:50, 100]), tifffile.imread(stack)[7:9, 3:50, 100])
    # the tags say 10 nm for y and x, and nothing for z
    np.testing.assert_allclose((options["scale"], options["translate"]), ((1, 10, 10), (0, 0, 0)))
    assert options["units"] == ("pixel", "nm", "nm")


def test_what_the_file_says_of_itself_goes_with_the_layer(tmp_path):
    vendor_tiff(tmp_path / "a.tif", pixels(ROWS + 6), tags=[(34682, fei_ini())])
    ((_, options, _),) = read_layers(str(tmp_path / "a.tif"))
    assert described_file(options["metadata"]).splitlines() == [
        "TIFF",
        "made by FEI Quanta FEG",
        "voxel unknown x 5 x 4 nm (z, y, x), FEI's TIFF tag 34682",
        "rows 40 to 45 are the data bar (ResolutionY in FEI's TIFF tag 34682), and are left out",
    ]
    assert described_file({}) == described_file({"emsr_fast": "of somebody else"}) == ""


@pytest.mark.parametrize("suffix", [".zarr", ".ome.tif"])
def test_an_output_lies_upon_the_input_it_was_made_of(stack, tmp_path, use_nearest, suffix):
    use_nearest()
    output = tmp_path / f"a{suffix}"
    infer(stack, output, **PART)
    ((_, low, _),) = read_layers(str(stack))
    ((_, high, _),) = read_layers(str(output))
    # the middle of nine pixels is the centre of the one that they were
    np.testing.assert_allclose(world(high, (1, 3 * 7 + 1, 3 * 4 + 1)), world(low, (3 + 1, 5 + 7, 9 + 4)))
    np.testing.assert_allclose(np.array(low["scale"]) / high["scale"], (1, 3, 3))
    assert high["units"] == low["units"]


def test_maps_of_trust_come_as_hidden_layers_in_place(stack, tmp_path, use_nearest):
    use_nearest()
    infer(stack, tmp_path / "a.zarr", **PART, trust=True)
    layers = {options["name"]: options for _, options, _ in read_layers(str(tmp_path / "a.zarr"))}
    assert list(layers) == ["a.zarr", "a.zarr: disagreement", "a.zarr: error", "a.zarr: residual"]
    assert [options.get("visible", True) for options in layers.values()] == [True, False, False, False]
    for name in ("disagreement", "error"):
        assert layers[f"a.zarr: {name}"]["translate"] == layers["a.zarr"]["translate"]
    ((_, low, _),) = read_layers(str(stack))
    np.testing.assert_allclose(world(layers["a.zarr: residual"], (0, 0, 0)), world(low, (3, 5, 9)))


def test_a_zarr_of_others_is_placed_by_its_transforms(tmp_path):
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("0", data=np.ones((2, 3, 4), np.uint8))
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    here = [{"type": "scale", "scale": [0.05, 0.01, 0.02]}, {"type": "translation", "translation": [1, 2, 3]}]
    every = [{"type": "scale", "scale": [2, 2, 2]}]
    image = {
        "axes": axes,
        "datasets": [{"path": "0", "coordinateTransformations": here}],
        "coordinateTransformations": every,
    }
    group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    found = placement_of(open_source(tmp_path / "a.zarr"))
    np.testing.assert_allclose(found.scale, (100, 20, 40))
    np.testing.assert_allclose(found.translate, (2000, 4000, 6000))
    assert found.units == ("nm", "nm", "nm")


def test_a_file_that_is_no_volume_says_what_is_wrong(tmp_path):
    bad = tmp_path / "bad.tif"
    bad.write_bytes(b"II*\0 and no more")
    with pytest.raises(VolumeError, match=r"bad\.tif"):
        get_reader(str(bad))(str(bad))
    with pytest.raises(VolumeError, match="does not exist"):
        get_reader("none.tif")("none.tif")


@pytest.mark.parametrize("name", ["a.ome.zarr", "a.ome.tif", "a.mrc", "a.h5"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_what_is_written_is_read_back_with_its_voxel_size(tmp_path, name, dtype):
    data = (np.random.default_rng(0).random((3, 40, 900)) * 200).astype(dtype)
    path = str(tmp_path / name)
    # micrometres, as others have it
    assert write_image(path, data, {"scale": (0.05, 0.01, 0.01), "units": ("um", "um", "um")}) == [path]
    with open_source(path) as source:
        np.testing.assert_allclose(source.info.voxel_size_nm, (50, 10, 10), rtol=1e-6)
    ((found, options, _),) = read_layers(path)
    np.testing.assert_array_equal(np.asarray(found), data)
    # MRC has no 8 bits without sign
    assert found.dtype == data.dtype or name == "a.mrc"
    np.testing.assert_allclose(options["scale"], (50, 10, 10), rtol=1e-6)


def test_a_flat_image_is_a_stack_of_one_and_pixels_are_no_length(tmp_path):
    data = np.arange(12, dtype=np.uint16).reshape(3, 4)
    write_image(str(tmp_path / "a.tif"), data, {"scale": (2.0, 2.0), "units": ("pixel", "pixel")})
    with open_source(tmp_path / "a.tif") as source:
        assert source.info.voxel_size_nm == (None, None, None)
        np.testing.assert_array_equal(source.read(0, slice(0, 3), slice(0, 4)), data)


@pytest.mark.parametrize(
    ("data", "attributes", "words"),
    [
        (np.zeros((4, 4, 3), np.uint8), {"rgb": True}, "a colour image"),
        (np.zeros((2, 2, 4, 4), np.uint8), {}, "4 axes"),
        (np.zeros((4, 4), np.int64), {}, "int64"),
        (np.zeros((4, 4), np.uint8), {"rotate": np.array([[0, 1], [-1, 0]])}, "rotated or sheared"),
        (np.zeros((4, 4), np.uint8), {"shear": np.array([0.1])}, "sheared"),
    ],
)
def test_a_layer_that_no_file_holds_is_refused_and_leaves_nothing(tmp_path, data, attributes, words):
    with pytest.raises(UsageError, match=words):
        write_image(str(tmp_path / "a.tif"), data, attributes)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"precious")
    with pytest.raises(VolumeError, match="exists"):
        write_image(str(tmp_path / "a.tif"), np.zeros((4, 4), np.uint8), {})
    assert (tmp_path / "a.tif").read_bytes() == b"precious"


def test_the_visible_part_is_what_the_corners_enclose_cut_to_the_image():
    assert visible_region(np.array([[1.2, -5], [3.4, 99]]), 1.6, (3, 10, 20)) == Region(2, (1, 5), (0, 20))
    for corners, z in (([[20, 0], [30, 5]], 0), ([[0, 0], [5, 5]], 3), ([[-9, 0], [-2, 5]], 0)):
        with pytest.raises(UsageError, match="nothing of the image is visible"):
            visible_region(np.array(corners), z, (3, 10, 20))


def test_a_visible_region_becomes_what_infer_makes_of_it(stack, tmp_path):
    # as large as one tile of infer, so that both read the same
    infer(stack, tmp_path / "a.zarr", **PART, trust=True)
    network = load_model("emsr-x3-small", device="cpu")
    source = ArrayVolume(tifffile.imread(stack))
    own = zarr.open_group(tmp_path / "a.zarr", mode="r").attrs["emsr_fast"]
    region = Region(4, (5, 50), (9, 62))
    steps = list(
        super_resolve_region(
            source, TorchEngine(network), region, dtype_range(source.dtype), Trust.from_json(own["trust"])
        )
    )
    assert [(done, tiles) for done, tiles, _ in steps] == [(1, 1)]
    result = steps[-1][2]
    written = zarr.open_group(tmp_path / "a.zarr", mode="r")
    np.testing.assert_array_equal(result.image[0], written["0"][1])
    for name, values in result.maps.items():
        np.testing.assert_array_equal(values[0], written[f"trust/{name}/0"][1])
    # pixel centres
    part = Placement((30.0, 10.0, 10.0), (0.0, 0.0, 0.0), ("nm",) * 3).part((4, 5, 9), 3)
    np.testing.assert_allclose(part.translate, (120, 50 - 10 / 3, 90 - 10 / 3))


def test_hot_pixels_of_a_region_are_bounded_and_counted(stack, nearest_engine):
    pixels = tifffile.imread(stack)[:1].astype("u2")
    pixels[0, [10, 127, 128, 150], [10, 128, 127, 20]] = 60000
    grey = Normalisation(0.0, 255.0, "given")
    region = Region(0, (20, 192), (0, 192))
    *_, (_, _, result) = super_resolve_region(ArrayVolume(pixels, name="stack"), nearest_engine(), region, grey, None)
    assert result.bounded == 3
    assert result.image.max() == 510


def test_a_region_comes_tile_by_tile_and_can_be_left(stack, nearest_engine):
    source = ArrayVolume(tifffile.imread(stack))
    engine = nearest_engine()
    steps = super_resolve_region(source, engine, Region(0, (0, 192), (0, 192)), dtype_range(source.dtype), None)
    assert next(steps)[:2] == (1, 4)
    steps.close()
    assert len(engine.shapes) == 1


def test_a_layer_of_something_else_is_refused():
    with pytest.raises(VolumeError, match="dtype int64"):
        ArrayVolume(np.zeros((4, 4), np.int64), name="labels")
    assert issubclass(VolumeError, EmsrError)


def test_the_manifest_names_what_exists():
    manifest = yaml.safe_load((resources.files("emsr_fast.napari") / "napari.yaml").read_text())
    contributions = manifest["contributions"]
    named = {command["id"] for command in contributions["commands"]}
    used = [*contributions["readers"], *contributions["writers"], *contributions["widgets"]]
    assert {contribution["command"] for contribution in used} == named
    for command in contributions["commands"]:
        module, name = command["python_name"].split(":")
        source = (resources.files("emsr_fast.napari") / f"{module.rpartition('.')[2]}.py").read_text()
        assert re.search(rf"^(def|class) {name}\b", source, re.MULTILINE)
    written = {suffix for known in FORMATS for suffix in known.suffixes}
    assert set(contributions["writers"][0]["filename_extensions"]) <= written

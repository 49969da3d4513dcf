"""Formats of other programs through the commands: they give what a TIFF of the same pixels gives."""

import json

import numpy as np
import pytest
import tifffile
import zarr

from emsr_fast.cli import main
from emsr_fast.io.registry import open_source
from emsr_fast.train.config import Source
from emsr_fast.train.pairs import pairs_of
from emsr_fast.train.volumes import TrainingVolume
from jeiss_files import write_jeiss

ALL = slice(None)


@pytest.fixture
def tissue(stack):
    """Two slices of 56 x 60 px of a real stack."""
    return tifffile.imread(stack)[:2, :56, :60]


def raw(folder, stack):
    (folder / "a.raw").write_bytes(stack.tobytes())
    return f"{folder}/a.raw:/raw=2x56x60:uint8:50x30x27nm"


def nifti(folder, stack):
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(stack.T, np.diag([0.027, 0.03, 0.05, 1]))
    image.header.set_xyzt_units("micron")
    nibabel.save(image, folder / "a.nii.gz")
    return folder / "a.nii.gz"


def nrrd(folder, stack):
    header = {"spacings": [27, 30, 50], "units": ["nm"] * 3}
    pytest.importorskip("nrrd").write(str(folder / "a.nrrd"), stack, header, index_order="C")
    return folder / "a.nrrd"


def czi(folder, stack):
    with pytest.importorskip("pylibCZIrw.czi").create_czi(str(folder / "a.czi")) as file:
        for z, plane in enumerate(stack):
            file.write(plane[..., None], plane={"C": 0, "Z": z, "T": 0})
        file.write_metadata("a", scale_x=2.7e-8, scale_y=3e-8, scale_z=5e-8)
    return folder / "a.czi"


def jeiss(folder, stack):
    (folder / "slices").mkdir()
    for z, plane in enumerate(stack):
        write_jeiss(folder / "slices" / f"{z}.dat", plane[..., None], pixel_nm=30)
    return folder / "slices"


def webknossos(folder, stack):
    place = folder / "dataset"
    place.mkdir()
    layer = {"name": "em", "category": "color", "elementClass": "uint8", "dataFormat": "zarr3"}
    layer["boundingBox"] = {"topLeft": [0, 0, 0], "width": 60, "height": 56, "depth": 2}
    layer["mags"] = [{"mag": 1, "path": "em/1"}]
    properties = {"dataLayers": [layer], "scale": {"factor": [27, 30, 50], "unit": "nanometer"}}
    (place / "datasource-properties.json").write_text(json.dumps(properties))
    zarr.create_array(place / "em" / "1", data=stack.T[None].copy(), chunks=(1, 32, 32, 32))
    return place


WRITERS = {function.__name__: function for function in (raw, nifti, nrrd, czi, jeiss, webknossos)}
SIZES = {"jeiss": (None, 30, 30)}


@pytest.mark.parametrize("name", WRITERS)
def test_infer_gives_the_same_pixels_and_the_size_divided_by_the_scale(tissue, tmp_path, use_nearest, name):
    use_nearest()
    tifffile.imwrite(tmp_path / "same.tif", tissue, photometric="minisblack")
    found = []
    for place, output in ((WRITERS[name](tmp_path, tissue), "y.ome.zarr"), (tmp_path / "same.tif", "same.ome.zarr")):
        assert main(["infer", str(place), "-o", str(tmp_path / output)]) == 0
        with open_source(tmp_path / output) as source:
            found.append([source.read(z, ALL, ALL) for z in range(2)])
            if output == "y.ome.zarr":
                z, y, x = SIZES.get(name, (50, 30, 27))
                assert source.info.voxel_size_nm == (pytest.approx(z), pytest.approx(y / 3), pytest.approx(x / 3))
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("name", WRITERS)
def test_they_are_training_volumes_and_references(tissue, tmp_path, name):
    place = WRITERS[name](tmp_path, tissue)
    training, _ = pairs_of(Source(hr=place, volume=name == "jeiss"), 3, 4, tmp_path)
    assert [crop.origin.shape for crop in training] == 2 * [tissue.shape]
    if name == "jeiss":
        alone, _ = pairs_of(Source(hr=place), 3, 4, tmp_path)
        assert [crop.origin.shape for crop in alone] == 2 * [tissue[:1].shape]
    volume = TrainingVolume(place)
    for z, plane in enumerate(tissue):
        np.testing.assert_array_equal(volume.whole(z), plane)
    tifffile.imwrite(tmp_path / "sr.tif", tissue, photometric="minisblack")
    report = tmp_path / "report"
    command = ["evaluate", str(tmp_path / "sr.tif"), "-o", str(report), "--reference", str(place), "--pixel-nm", "10"]
    assert main(command) == 0
    assert (report / "slices.csv").exists()

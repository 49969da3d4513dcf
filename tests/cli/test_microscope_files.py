"""Files as microscopes write them, through every command: they give what a TIFF of the same pixels gives."""

import json

import numpy as np
import pytest
import tifffile
import yaml

import fields
from dm_files import image, thumbnail, write_dm
from emd_files import ncem, velox
from emsr_fast.cli import main
from emsr_fast.io.registry import open_source
from emsr_fast.train.config import Source
from emsr_fast.train.pairs import pairs_of
from emsr_fast.train.volumes import TrainingVolume
from ser_files import write_ser
from training import column
from vendor_tiffs import fei_ini, vendor_tiff

ALL = slice(None)
Y_NM, X_NM, BAR = 30.0, 27.0, 12


@pytest.fixture
def tissue(stack):
    """Two slices of 56 x 60 px of a real stack."""
    return tifffile.imread(stack)[:2, :56, :60]


def dm(path, stack, y_nm=Y_NM, x_nm=X_NM):
    steps = ((50.0, "nm"), (y_nm / 1000, "µm"), (x_nm, "nm"))[-stack.ndim :]
    made_by = {"Microscope Info": {"Name": "Zeiss Gemini"}}
    described = image(stack, steps=steps)
    described["ImageTags"] |= made_by
    return write_dm(path, thumbnail(), described)


def with_bar(path, stack, pixel_nm=Y_NM):
    rows, columns = stack.shape[-2:]
    whole = np.concatenate((stack, np.full((*stack.shape[:-2], BAR, columns), 255, stack.dtype)), axis=-2)
    text = fei_ini(size=f"{pixel_nm}e-9", rows=rows, columns=columns).replace("5.0e-9", f"{pixel_nm}e-9")
    vendor_tiff(path, whole, tags=[(34682, text)])
    return path


def run(*arguments):
    assert main([*map(str, arguments)]) == 0


def pixels_of(path):
    with open_source(path) as source:
        return np.stack([source.read(z, ALL, ALL) for z in range(source.shape[0])]), source.info


@pytest.mark.parametrize("suffix", ["dm3", "dm4"])
def test_a_dm_file_is_inferred_with_its_voxel_size_divided_by_the_scale(tissue, tmp_path, suffix):
    run("infer", dm(tmp_path / f"x.{suffix}", tissue), "-o", tmp_path / "y.ome.zarr")
    tifffile.imwrite(tmp_path / "x.tif", tissue, photometric="minisblack")
    run("infer", tmp_path / "x.tif", "-o", tmp_path / "same.ome.zarr")
    found, info = pixels_of(tmp_path / "y.ome.zarr")
    np.testing.assert_array_equal(found, pixels_of(tmp_path / "same.ome.zarr")[0])
    assert info.voxel_size_nm == pytest.approx((50, Y_NM / 3, X_NM / 3), rel=1e-6)
    described = json.loads((tmp_path / "y.ome.zarr" / "zarr.json").read_text())["attributes"]["ome"]["multiscales"][0]
    scale = described["datasets"][0]["coordinateTransformations"][0]["scale"]
    assert scale == pytest.approx([50, Y_NM / 3, X_NM / 3], rel=1e-6)
    assert [axis["unit"] for axis in described["axes"]] == ["nanometer"] * 3


def test_a_folder_of_dm_files_is_inferred_in_numeric_order(stack, tmp_path, use_nearest):
    use_nearest()
    slices = tifffile.imread(stack)[:11, :36, :40]
    folder = tmp_path / "view"
    folder.mkdir()
    for number, plane in enumerate(slices):
        dm(folder / f"slice {number}.dm4", plane)
    run("infer", folder, "-o", tmp_path / "y.ome.zarr")
    found, info = pixels_of(tmp_path / "y.ome.zarr")
    # grey values go through the network as floats
    np.testing.assert_allclose(found, slices.repeat(3, 1).repeat(3, 2).astype(int), atol=1)
    assert info.voxel_size_nm == (None, *(pytest.approx(side / 3, rel=1e-6) for side in (Y_NM, X_NM)))


KINDS = {
    "a.dm4": (dm, "DigitalMicrograph 4", "Zeiss Gemini", "50 x 30 x 27 nm (z, y, x), DigitalMicrograph calibration"),
    "a.ser": (
        lambda path, stack: write_ser(path, stack, step_m=(30e-9, 27e-9)), "TIA SER 0x220", None,
        "unknown x 30 x 27 nm (z, y, x), SER calibration",
    ),
    "v.emd": (
        lambda path, stack: velox(path, stack, pixel=("30e-9", "27e-9"), instrument={"InstrumentModel": "Talos"}),
        "Velox EMD", "Talos", "unknown x 30 x 27 nm (z, y, x), Velox metadata",
    ),
    "n.emd": (
        lambda path, stack: ncem(
            path, stack, [((0, step), name, "[n_m]") for name, step in (("z", 50), ("y", 30), ("x", 27))],
            instrument={"name": "TEAM I"},
        ),
        "NCEM EMD", "TEAM I", "50 x 30 x 27 nm (z, y, x), EMD dim vectors",
    ),
    "bar.tif": (
        with_bar, "TIFF", "FEI Quanta FEG", "unknown x 30 x 30 nm (z, y, x), FEI's TIFF tag 34682",
    ),
}  # fmt: skip


@pytest.mark.parametrize("command", ["inspect", "preview", "infer"])
@pytest.mark.parametrize("name", KINDS)
def test_instrument_format_bar_and_the_size_s_origin_are_shown(tissue, tmp_path, name, command, capsys):
    write, kind, instrument, voxel = KINDS[name]
    write(tmp_path / name, tissue)
    more = {"inspect": [], "preview": ["-o", tmp_path / "p.png", "--no-trust"], "infer": ["-o", "o.zarr", "--dry-run"]}
    run(command, tmp_path / name, *more[command])
    shown = " ".join("".join(capsys.readouterr()).split())
    assert (
        f"format {kind} " in shown if command == "inspect" else f"{name}: {kind}, 2 x 56 x 60 (Z, Y, X), uint8" in shown
    )
    assert ("made by" in shown) == (instrument is not None)
    assert f"made by {instrument} " in shown or instrument is None
    assert f"voxel {voxel}" in shown
    bar = (
        "rows 56 to 67 are the data bar (ResolutionY in FEI's TIFF tag 34682), and are left out; --keep-data-bar keeps"
    )
    assert (bar in shown) == (name == "bar.tif")


@pytest.mark.parametrize("name", KINDS)
def test_they_are_training_volumes(tissue, tmp_path, name):
    KINDS[name][0](tmp_path / name, tissue)
    training, _ = pairs_of(Source(hr=tmp_path / name), 3, 4, tmp_path)
    assert [crop.origin.shape for crop in training] == 2 * [tissue.shape]
    volume = TrainingVolume(tmp_path / name)
    for z, plane in enumerate(tissue):
        np.testing.assert_array_equal(volume.whole(z), plane)


def test_they_serve_train(tissue, small_run, tmp_path):
    dm(tmp_path / "a.dm4", tissue)
    with_bar(tmp_path / "bar.tif", tissue)
    part = {"slices": "0:1", "validation_slices": "1:2"}
    sources = [{"hr": str(tmp_path / name), **part} for name in ("a.dm4", "bar.tif")]
    short = {"sources": sources, "steps": 1, "validate_every": 1, "checkpoint_every": 1, "validation_crops": 1}
    (tmp_path / "t.yaml").write_text(yaml.safe_dump({**small_run, **short, "batch": 1}))
    run("train", tmp_path / "t.yaml", "--device", "cpu")
    assert np.isfinite(column(tmp_path / "run", "loss")).all()


@pytest.mark.parametrize("name", KINDS)
def test_they_serve_evaluate(tissue, tmp_path, name):
    low = tissue[:, ::3, ::3].copy()
    KINDS[name][0](tmp_path / name, tissue)
    tifffile.imwrite(tmp_path / "same.tif", tissue, photometric="minisblack")
    tifffile.imwrite(tmp_path / "sr.tif", np.repeat(np.repeat(low, 3, 1), 3, 2)[:, :56, :60], photometric="minisblack")
    reports = []
    for reference in (tmp_path / name, tmp_path / "same.tif"):
        folder = tmp_path / f"of {reference.name}"
        run("evaluate", tmp_path / "sr.tif", "-o", folder, "--reference", reference, "--pixel-nm", "10")
        reports.append((folder / "slices.csv").read_text())
    assert reports[0] == reports[1]


@pytest.mark.parametrize("high", ["hr.dm4", "hr.tif"])
def test_they_serve_pair(stack, tmp_path, high, capsys):
    corner, shape, to_lr = (20, 30), (141, 138), fields.matrix(3.0, 0.5)
    whole = tifffile.imread(stack)[:1].astype(np.float64)
    centre = (np.array(corner) + np.array(shape) / 2) / 3 - 0.5
    low = fields.acquired_lr(whole[0], corner, shape, centre, to_lr, (57, 57))
    low, detail = np.rint(low).clip(0, 255).astype("u1"), whole[0, 20:161, 30:168].astype("u1")
    with_bar(tmp_path / "hr.tif", detail, 10.0)
    dm(tmp_path / "hr.dm4", detail, 10.0, 10.0)
    dm(tmp_path / "lr.dm4", low, 30.0, 30.0)
    with_bar(tmp_path / "lr.tif", low, 30.0)
    run("pair", tmp_path / ("lr.tif" if "dm" in high else "lr.dm4"), tmp_path / high, "-o", tmp_path / "set")
    assert "are the data bar (ResolutionY in FEI's TIFF tag 34682), and are left out" in capsys.readouterr().err
    (found,) = (tmp_path / "set" / "HR").iterdir()
    kept = tifffile.imread(found)
    # the bar would be a part of HR that LR does not show
    assert kept.shape[0] <= 141
    assert (kept == 255).mean() < 0.01

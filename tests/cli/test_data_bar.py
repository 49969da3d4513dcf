"""``--keep-data-bar``: every command leaves the data bar out, and reads it when asked to."""

import numpy as np
import pytest

from emsr_fast.cli import main
from emsr_fast.io.registry import open_source
from emsr_fast.train.config import Source
from emsr_fast.train.pairs import pairs_of
from emsr_fast.train.volumes import TrainingVolume
from vendor_tiffs import fei_ini, pixels, vendor_tiff

ROWS, BAR, SIDE = 48, 12, 48
EACH = [([], ROWS), (["--keep-data-bar"], ROWS + BAR)]


@pytest.fixture
def scan(tmp_path):
    vendor_tiff(tmp_path / "a.tif", pixels(ROWS + BAR, SIDE), tags=[(34682, fei_ini(rows=ROWS, columns=SIDE))])
    return tmp_path / "a.tif"


@pytest.mark.parametrize(("more", "rows"), EACH)
def test_inspect_infer_and_the_output_say_it(scan, tmp_path, capsys, more, rows):
    assert main(["inspect", str(scan), *more]) == 0
    said = capsys.readouterr().out
    assert f"1 x {rows} x {SIDE}" in said
    assert ("--keep-data-bar keeps them" in said) == (not more)
    run = ["infer", str(scan), "-o", str(tmp_path / "o.ome.zarr"), "--input-voxel", "ignore", *more]
    assert main([*run, "--dry-run"]) == 0
    shown = capsys.readouterr()
    assert "made by FEI Quanta FEG" in shown.out + shown.err
    assert f"rows {ROWS} to {ROWS + BAR - 1} are the data bar" in shown.out + shown.err
    assert main(run) == 0
    with open_source(tmp_path / "o.ome.zarr") as source:
        assert source.shape == (1, 3 * rows, 3 * SIDE)
    text = (tmp_path / "o.ome.zarr" / "zarr.json").read_text()
    assert f"rows {ROWS} to {ROWS + BAR - 1} are the data bar" in text
    assert ('"keep_data_bar": true' in text) == bool(more)
    report = ["evaluate", str(tmp_path / "o.ome.zarr"), "-o", str(tmp_path / "r"), "--lr", str(scan), "--samples", "1"]
    assert main([*report, *more]) == 0


@pytest.mark.parametrize(("more", "rows"), EACH)
def test_preview_reads_as_infer_does(scan, tmp_path, capsys, more, rows):
    run = ["preview", str(scan), "-o", str(tmp_path / "p.png"), "--input-voxel", "ignore", "--no-trust", *more]
    assert main(run) == 0
    shown = capsys.readouterr()
    for said in (f"1 x {rows} x {SIDE}", "made by FEI Quanta FEG", "FEI's TIFF tag 34682", "are the data bar"):
        assert said in shown.out + shown.err


@pytest.mark.parametrize("keep", [False, True])
def test_training_volumes(scan, tmp_path, keep):
    volume = TrainingVolume(scan, keep_data_bar=keep)
    assert volume.shape == (1, ROWS + BAR * keep, SIDE)
    training, _ = pairs_of(Source(hr=scan, keep_data_bar=keep), 3, 4, tmp_path)
    assert {crop.origin.shape for crop in training} == {volume.shape}
    np.testing.assert_array_equal(volume.whole(0), pixels(ROWS + BAR, SIDE)[: volume.shape[1]])

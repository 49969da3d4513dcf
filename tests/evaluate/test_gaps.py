"""What evaluate says of slices that have no contrast, and of images that are identical."""

import csv
from pathlib import Path

import numpy as np
import pytest
import tifffile

from emsr_fast.evaluate.job import evaluate
from emsr_fast.pictures import degrade

STACK = Path(__file__).parents[2] / "examples" / "data" / "flyem_fibsem_10nm_48x192x192.tif"


def write(path, pixels):
    tifffile.imwrite(path, pixels, photometric="minisblack")
    return path


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    folder, stack = tmp_path_factory.mktemp("volumes"), tifffile.imread(STACK)[:5]
    return {
        "reference": write(folder / "reference.tif", stack),
        "lr": write(folder / "lr.tif", degrade(stack, 3)),
    }


def rows_of(folder):
    with (folder / "slices.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_constant_slices_of_the_result_count_nowhere_and_are_warned_of(volumes, tmp_path):
    pixels = tifffile.imread(volumes["reference"])
    noisy = np.clip(pixels + np.random.default_rng(0).normal(0, 9, pixels.shape), 0, 255).astype(np.uint8)
    whole = evaluate(write(tmp_path / "whole.tif", noisy), tmp_path / "a", reference=volumes["reference"])
    noisy[[1, 3]] = 7
    done = evaluate(write(tmp_path / "gaps.tif", noisy), tmp_path / "b", reference=volumes["reference"])
    rows = {row["slice"]: row for row in done["slices"] if row["image"] == "sr"}
    assert list(rows) == [0, 1, 2, 3, 4]
    figures = [name for name in rows[0] if name not in ("slice", "y0", "y1", "x0", "x1", "image", "left_out")]
    assert "psnr_db" in figures
    for z, row in rows.items():
        assert row["left_out"] == ("sr is constant (7)" if z in (1, 3) else None)
        if z in (1, 3):
            assert [row[name] for name in figures] == [None] * len(figures)
    expected = [row["psnr_db"] for row in whole["slices"] if row["image"] == "sr" and row["slice"] in (0, 2, 4)]
    assert done["means"]["sr"]["psnr_db"]["mean"] == pytest.approx(np.mean(expected))
    assert done["means"]["sr"]["psnr_db"]["n"] == 3
    (told,) = (one for one in done["summary"]["What was measured"] if "left out" in one)
    assert told.startswith("Warning: 2 of 5 slices left out: constant. No figure and no average counts them: slice 1,")
    lines = [row for row in rows_of(tmp_path / "b") if row["image"] == "sr"]
    assert [row["left_out"] for row in lines] == ["", "sr is constant (7)", "", "sr is constant (7)", ""]
    assert [row["psnr_db"] == "" for row in lines] == [False, True, False, True, False]
    page = (tmp_path / "b" / "report.html").read_text()
    assert "over 3 slices that have the figure; 2 of 5 slices left out: constant</caption>" in page
    assert "<li class=warning>Warning: 2 of 5 slices left out: constant." in page
    assert page.count(">left out: sr is constant (7)</td>") == 4  # two slices of SR and of the reference
    assert "left out" not in (tmp_path / "a" / "report.html").read_text()


def test_identical_images_are_called_so(volumes, tmp_path):
    reference, lines = tifffile.imread(volumes["reference"]), []
    given = {"reference": volumes["reference"], "say": lines.append}
    found = evaluate(volumes["reference"], tmp_path / "a", **given)["summary"]["What was found"]
    assert found[0] == "SR and the reference are identical (infinite PSNR) in 5 of 5 slices."
    assert sum(line.endswith(": identical (infinite PSNR)") for line in lines) == 5
    # as float32 with another gain and offset they are the same up to rounding, but not identical
    part = reference.astype(np.float32) * np.float32(0.7) - 3
    part[1:3] = reference[1:3]
    done = evaluate(write(tmp_path / "part.tif", part), tmp_path / "b", lr=volumes["lr"], **given)
    found = done["summary"]["What was found"]
    assert found[0] == "SR and the reference are identical (infinite PSNR) in 2 of 5 slices."
    assert found[1].startswith("SR is closer to the reference than bicubic interpolation of LR (Keys, a = -0.5) in 5")
    values = [row["psnr_db"] for row in done["slices"] if row["image"] == "sr"]
    assert [value is None for value in values] == [False, True, True, False, False]
    assert all(value > 130 for value in values if value is not None)
    for text in (*lines, *found, (tmp_path / "b" / "report.html").read_text()):
        assert "inf dB" not in text
        assert "+inf" not in text

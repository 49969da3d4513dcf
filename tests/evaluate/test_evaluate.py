"""evaluate as users have it: a process, its files, its figures, its errors."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from emsr_fast.evaluate.job import evaluate
from emsr_fast.infer.job import infer
from emsr_fast.io.provenance import Provenance, read_provenance
from emsr_fast.io.resize import bicubic
from emsr_fast.metrics import psnr_after_affine_fit
from emsr_fast.pictures import degrade

NM = 10.0


def write(path, pixels, nm=NM):
    sizes = {f"PhysicalSize{axis}": side for axis, side in zip("ZYX", (NM, nm, nm), strict=True)}
    units = {f"PhysicalSize{axis}Unit": "nm" for axis in "ZYX"}
    tifffile.imwrite(path, pixels, ome=True, photometric="minisblack", metadata={"axes": "ZYX", **sizes, **units})
    return path


@pytest.fixture(scope="session")
def volumes(tmp_path_factory):
    """A real stack made coarse, super-resolved by the shipped model in tiles, and the next slices as second scan."""
    from pathlib import Path

    folder = tmp_path_factory.mktemp("volumes")
    stack = tifffile.imread(Path(__file__).parents[2] / "examples" / "data" / "flyem_fibsem_10nm_48x192x192.tif")
    low = degrade(stack[:5], 3)
    paths = {
        "lr": write(folder / "lr.tif", low, 3 * NM),
        "reference": write(folder / "reference.tif", stack[:5]),
        "second_scan": write(folder / "second.tif", stack[1:6]),
        "sr": folder / "sr.ome.zarr",
    }
    infer(paths["lr"], paths["sr"], tile=32, halo=32, device="cpu")
    infer(paths["lr"], folder / "part.ome.tif", tile=32, halo=32, device="cpu", slices="1:3")
    return paths | {"part": folder / "part.ome.tif"}


def run(*arguments):
    command = [sys.executable, "-m", "emsr_fast", "evaluate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def rows_of(folder):
    with (folder / "slices.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_report_holds_page_table_and_json_that_agree(volumes, tmp_path):
    result = run(
        *(volumes["sr"], "-o", tmp_path / "report", "--reference", volumes["reference"], "--lr", volumes["lr"]),
        *("--second-scan", volumes["second_scan"], "--samples", 3, "--json"),
    )
    assert result.returncode == 0, result.stderr
    printed = json.loads(result.stdout)
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["report.html", "report.json", "slices.csv"]
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    content = json.loads((tmp_path / "report" / "report.json").read_text())
    assert {name: value for name, value in printed.items() if name != "report"} == content
    assert content["settings"]["provenance"]["tile"] == 32
    assert content["settings"]["pixel_nm"] == pytest.approx(NM)
    rows = rows_of(tmp_path / "report")
    assert [(row["slice"], row["image"]) for row in rows[:4]] == [
        *(("0", "sr"), ("0", "bicubic"), ("0", "reference"), ("0", "second scan")),
    ]
    assert sorted({int(row["slice"]) for row in rows}) == [0, 2, 4]
    # figures are those of the pixels, computed here from whole slices
    low, reference = tifffile.imread(volumes["lr"]), tifffile.imread(volumes["reference"])
    for row in rows:
        if row["image"] == "bicubic":
            z = int(row["slice"])
            expected = psnr_after_affine_fit(bicubic(low[z], 3), reference[z], 255)
            assert float(row["psnr_db"]) == pytest.approx(expected, abs=1e-6)
    for row, again in zip(rows, content["slices"], strict=True):
        for name, value in again.items():
            assert row[name] == ("" if value is None else str(value)), name
    means = content["means"]
    assert means["sr"]["psnr_db"]["mean"] == pytest.approx(
        np.mean([float(row["psnr_db"]) for row in rows if row["image"] == "sr"])
    )
    assert means["sr"]["frc_nm"]["mean"] == pytest.approx(NM * means["sr"]["frc_px"]["mean"])
    assert "11" not in content["summary"]["What was measured"][0].split()
    assert content["summary"]["What was measured"][0].startswith("3 of 5 slices of sr.ome.zarr, made by emsr-x3-small")


def test_super_resolution_beats_bicubic_and_a_spoiled_one_does_not(volumes, tmp_path):
    arguments = {"reference": volumes["reference"], "lr": volumes["lr"], "samples": 2}
    good = evaluate(volumes["sr"], tmp_path / "good", **arguments)
    assert good["means"]["sr"]["psnr_db"]["mean"] > good["means"]["bicubic"]["psnr_db"]["mean"]
    assert good["means"]["sr"]["seam_z"]["mean"] < 3
    pixels = np.stack([ndimage.gaussian_filter(z.astype(float), 4) for z in tifffile.imread(volumes["reference"])])
    pixels[:, 96:] += 12
    bad = evaluate(write(tmp_path / "bad.tif", pixels.clip(0, 255).astype(np.uint8)), tmp_path / "bad", **arguments)
    assert bad["means"]["sr"]["psnr_db"]["mean"] < bad["means"]["bicubic"]["psnr_db"]["mean"]
    assert any("in 0 of 2 slices" in sentence for sentence in bad["summary"]["What was found"])
    # a plain file does not say how it was tiled
    assert "seam_z" not in bad["means"]["sr"]


def test_invented_detail_is_told_apart_from_confirmed_detail(tmp_path):
    rng = np.random.default_rng(0)

    def detail(frequency):
        place = np.hypot(np.fft.fftfreq(384)[:, None], np.fft.fftfreq(384)[None])
        signal = np.fft.ifft2(np.fft.fft2(rng.standard_normal((384, 384))) * (place <= frequency)).real
        return signal / signal.std()

    truth, invented = detail(0.1), detail(0.3)
    scans = [128 + 20 * (truth + 0.3 * rng.standard_normal(truth.shape)) for _ in range(2)]
    result = 128 + 20 * (truth + invented + 0.1 * rng.standard_normal(truth.shape))
    paths = [
        write(tmp_path / f"{name}.tif", image.astype(np.float32)[None])
        for name, image in (("sr", result), ("ref", scans[0]), ("second", scans[1]))
    ]
    done = evaluate(paths[0], tmp_path / "r", reference=paths[1], second_scan=paths[2])
    (ours,) = (row for row in done["slices"] if row["image"] == "sr")
    assert ours["frc_px"] == pytest.approx(1 / 0.1, rel=0.1)
    assert ours["decorrelation_px"] == pytest.approx(1 / 0.3, rel=0.05)
    assert any("may be invented" in sentence for sentence in done["summary"]["What was found"])


def test_without_reference_only_the_image_itself_is_judged(volumes, tmp_path):
    done = evaluate(volumes["sr"], tmp_path / "r", samples=1)
    assert set(done["means"]) == {"sr"}
    assert {"decorrelation_px", "seam_ratio", "clipped_fraction"} <= set(done["means"]["sr"])
    # SR is smooth: its chessboard halves agree to their end, which is no cut-off
    assert min(done["curves"]["single_image_ring_correlation"]["sr"]["together"]) > 1 / 7
    assert any("agree down to the finest detail that can be seen this way, 40 nm" in sentence
               for sentence in done["summary"]["What was found"])  # fmt: skip
    assert "psnr_db" not in done["means"]["sr"]
    assert done["slices"][0]["slice"] == 2
    assert "nothing here says whether what is seen is true" in " ".join(done["summary"]["What was measured"])


def test_part_of_a_volume_finds_its_slices_in_the_whole(volumes, tmp_path):
    whole = evaluate(volumes["sr"], tmp_path / "a", reference=volumes["reference"], lr=volumes["lr"], slices="1:3")
    part = evaluate(volumes["part"], tmp_path / "b", reference=volumes["reference"], lr=volumes["lr"])
    assert part["volumes"]["lr"]["first_slice"] == 1
    figures = [[row["psnr_db"] for row in one["slices"] if "psnr_db" in row] for one in (whole, part)]
    assert len(figures[0]) == 4
    assert figures[0] == figures[1]
    assert part["settings"]["provenance"]["tile"] == 32


def test_a_displacement_is_measured_and_warned_of(volumes, tmp_path):
    reference = tifffile.imread(volumes["reference"])
    moved = np.stack([ndimage.shift(z.astype(float), (1.5, -2.0), mode="nearest") for z in reference[:1]])
    done = evaluate(
        write(tmp_path / "moved.tif", moved.clip(0, 255).astype(np.uint8)),
        tmp_path / "r",
        reference=write(tmp_path / "reference.tif", reference[:1]),
    )
    assert done["slices"][0]["shift_px"] == pytest.approx(2.5, abs=0.1)
    assert any(sentence.startswith("Warning: SR and the reference are displaced by 2.") for sentence in
               done["summary"]["What was found"])  # fmt: skip


def _bad(volumes, folder):
    """Yield (name, arguments, exit code, words of the error)."""
    sr, reference = volumes["sr"], volumes["reference"]
    pixels = tifffile.imread(reference)
    yield "missing SR", [folder / "no.tif"], 3, "does not exist"
    yield "missing reference", [sr, "--reference", folder / "no.tif"], 3, "no.tif does not exist"
    small = write(folder / "small.tif", pixels[:, :190])
    yield "shapes", [sr, "--reference", small], 2, "reference slices are 190x192 px and SR slices 192x192"
    yield "second scan", [sr, "--second-scan", small], 2, "second scan slices are 190x192"
    few = write(folder / "few.tif", pixels[:4])
    yield "depth", [sr, "--reference", few], 2, "reference has 4 slices and SR 5"
    yield "lr", [sr, "--lr", small], 2, "not a whole multiple"
    flat = write(folder / "flat.tif", np.full_like(pixels, 9))
    yield "constant SR", [flat, "--reference", reference], 3, "sr is constant (9)"
    yield "constant reference", [sr, "--reference", flat], 3, "reference is constant (9)"
    holes = pixels.astype(np.float32)
    holes[0, 5, 6] = np.nan
    nan = write(folder / "nan.tif", holes)
    yield "NaN", [sr, "--reference", nan], 3, "NaN or infinite"
    yield "samples", [sr, "--samples", -1], 2, "--samples is -1"
    yield "slices", [sr, "--slices", "3:9"], 2, "has slices 0 to 4"
    yield "pixel", [sr, "--pixel-nm", 0], 2, "pixel-nm is 0"
    yield "lpips alone", [sr, "--lpips", folder / "no.pth"], 2, "--reference"
    yield "lpips weights", [sr, "--reference", reference, "--lpips", folder / "no.pth"], 3, "cannot be read"


def test_bad_input_is_one_line_and_leaves_nothing(volumes, tmp_path, capfd):
    from emsr_fast.cli import main

    out = tmp_path / "out"
    out.mkdir()
    for name, arguments, code, words in _bad(volumes, tmp_path):
        assert main(["evaluate", *map(str, arguments), "-o", str(out / "report")]) == code, name
        error = capfd.readouterr().err.splitlines()[-1]
        assert error.startswith("error: "), name
        assert words in error, (name, error)
        assert not list(out.iterdir()), name


def test_outputs_are_never_lost(volumes, tmp_path, capfd):
    from emsr_fast.cli import main

    def ends(output, *options):
        code = main(["evaluate", str(volumes["sr"]), "-o", str(output), "--samples", "1", *options])
        return code, capfd.readouterr().err.splitlines()[-1]

    assert ends(tmp_path / "no" / "report")[0] == 3
    assert ends(tmp_path / "report.html")[0] == 2
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("years")
    code, line = ends(home, "--overwrite")
    assert code == 3
    assert "a folder that is not a report" in line
    assert ends(tmp_path / "report")[0] == 0
    before = (tmp_path / "report" / "slices.csv").read_text()
    code, line = ends(tmp_path / "report")
    assert code == 3
    assert "--overwrite" in line
    assert ends(tmp_path / "report", "--overwrite", "--pixel-nm", "7")[0] == 0
    assert (tmp_path / "report" / "slices.csv").read_text() != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "report"]


def test_a_missing_slice_is_left_out_and_said(volumes, tmp_path):
    pixels = tifffile.imread(volumes["reference"])
    pixels[2] = 0
    done = evaluate(volumes["sr"], tmp_path / "r", reference=write(tmp_path / "gap.tif", pixels))
    ours = {row["slice"]: row for row in done["slices"] if row["image"] == "sr"}
    assert list(ours) == [0, 1, 2, 3, 4]
    assert [z for z, row in ours.items() if row["left_out"] is None] == [0, 1, 3, 4]
    assert ours[2]["left_out"] == "reference is constant (0)"
    (told,) = (one for one in done["summary"]["What was measured"] if "left out" in one)
    assert told.startswith("1 of 5 slices left out: constant. ")
    assert "reference is constant (0)" in told


def test_equal_images_give_json_that_any_reader_takes(volumes, tmp_path):
    done = evaluate(volumes["reference"], tmp_path / "r", reference=volumes["reference"], samples=1)
    assert done["slices"][0]["psnr_db"] is None
    json.loads((tmp_path / "r" / "report.json").read_text(), parse_constant=pytest.fail)
    assert rows_of(tmp_path / "r")[0]["psnr_db"] == "inf"


def test_provenance_is_read_back_from_both_formats(volumes, tmp_path):
    whole = ((0, 5), (0, 64), (0, 64))
    assert read_provenance(volumes["sr"]) == Provenance(32, 32, 3, *whole, "emsr-x3-small", "emsr_fast 0.1.0")
    assert read_provenance(volumes["part"]).slices == (1, 3)
    assert read_provenance(volumes["lr"]) == Provenance()
    (tmp_path / "zarr.json").write_text("{")
    assert read_provenance(tmp_path) == Provenance()

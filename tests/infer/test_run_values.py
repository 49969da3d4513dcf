"""A journal with a right checksum around values that no run has is one line and exit code 3."""

import hashlib
import json

import pytest

from emsr_fast.cli import main
from emsr_fast.infer.run import FORMAT, JOURNAL


def signed(run):
    checksum = hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()
    return {"format": FORMAT, "sha256": checksum, "run": run}


def published(ready):
    return {"publication": {"ready": ready, "identities": [], "bounded_pixels": 0}}


VALUES = {
    "output.shape": [{"shape": [0, 0, 0]}, {"shape": [-1, 192, 1200]}, {"shape": [4, 192, 1203]}],
    "output.scale": [{"scale": 0}, {"scale": 2}],
    "output.block": [{"block": 0}],
    "plan.shape": [{"shape": [0, 0, 0]}, {"shape": [10**9, 64, 400]}],
    "plan.region": [{"region": [[0, 4], [0, 64], [0, 401]]}, {"region": [[0, 4], [64, 0], [0, 400]]}],
    "plan.scale": [{"scale": 0}, {"scale": 4}],
    "plan.tile": [{"tile": [0, 0]}, {"tile": [32, 33]}, {"tile": [-32, 32]}],
    "plan.halo": [{"halo": -4}, {"halo": 3}],
    "plan.block": [{"block": [0, 0, 0]}, {"block": [1, 64, -1]}],
    "normalisation.high": [{"high": 0}, {"high": float("nan")}, {"high": float("inf")}],
    "normalisation.bounds": [{"bounds": [1.0, 0.0]}],
    "publication.ready": [published("../../x"), published("/etc"), published("."), published("export/../../x")],
}


@pytest.mark.parametrize("name", VALUES)
def test_values_that_no_run_has_are_refused(half, capsys, name):
    folder, words = half
    journal = folder / "out.zarr.partial" / JOURNAL
    before = journal.read_text()
    part, _ = name.split(".")
    for values in VALUES[name]:
        run = json.loads(before)["run"]
        (run if part == "publication" else run[part]).update(values)
        journal.write_text(json.dumps(signed(run)))
        for more in ([], ["--finish"]):
            assert main([*words, *more]) == 3
            (line,) = capsys.readouterr().err.splitlines()
            assert line.startswith(f"error: {journal} is not understood: run.{name} is ")


def test_a_number_beyond_all_floats_is_refused(half, capsys):
    folder, words = half
    journal = folder / "out.zarr.partial" / JOURNAL
    run = json.loads(journal.read_text())["run"]
    run["normalisation"]["high"] = 10**400
    journal.write_text(json.dumps(signed(run)))
    assert main(words) == 3
    assert f"{journal} is not understood: int too large" in capsys.readouterr().err


def test_a_part_that_is_there_twice_is_refused(half, capsys):
    folder, words = half
    journal = folder / "out.zarr.partial" / JOURNAL
    text = journal.read_text()
    for twice in ("format", "halo"):
        journal.write_text(text.replace(f'"{twice}":', f'"{twice}": 4, "{twice}":', 1))
        assert main(words) == 3
        assert f"{journal} is not JSON: two parts are called '{twice}'" in capsys.readouterr().err


@pytest.mark.parametrize("number", [float(FORMAT), True, f"{FORMAT}"])
def test_a_format_that_is_no_whole_number_is_refused(half, capsys, number):
    folder, words = half
    journal = folder / "out.zarr.partial" / JOURNAL
    journal.write_text(json.dumps(json.loads(journal.read_text()) | {"format": number}))
    assert main(words) == 3
    assert f"has format {number!r}, and this version" in capsys.readouterr().err

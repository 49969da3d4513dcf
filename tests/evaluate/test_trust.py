"""The report's section on a map of trust: figures on errors that are known, and errors of use."""

import json

import numpy as np
import pytest
import tifffile

from emsr_fast.errors import UsageError
from emsr_fast.evaluate.job import evaluate


@pytest.fixture
def judged(tmp_path):
    """Real EM as reference; a result that differs by noise of a known, changing size, and half the contrast."""
    from pathlib import Path

    stack = Path(__file__).parents[2] / "examples" / "data" / "flyem_fibsem_10nm_48x192x192.tif"
    reference = tifffile.imread(stack)[:2].astype(np.float32)
    sigma = np.broadcast_to(np.linspace(1, 5, 192, dtype=np.float32)[:, None], reference.shape)
    noise = sigma * np.random.default_rng(0).standard_normal(reference.shape, dtype=np.float32)
    volumes = {"reference": reference, "sr": reference / 2 + 30 + noise / 2, "trust": sigma / 2}
    for name, pixels in volumes.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", np.ascontiguousarray(pixels), photometric="minisblack")
    return {name: tmp_path / f"{name}.tif" for name in volumes}


def test_a_map_that_tells_the_truth_has_a_straight_calibration_curve(judged, tmp_path):
    done = evaluate(judged["sr"], tmp_path / "out", reference=judged["reference"], trust=judged["trust"])
    found = done["trust"]
    # in grey values of the reference: twice those of the result
    assert found["expected_rms"] == pytest.approx(found["true_rms"], rel=0.1)
    for expected, true, pixels in found["calibration_curve"]:
        assert pixels > 700
        # the fit takes the noise, 1 % of the variance here, for contrast that the reference lacks
        assert true == pytest.approx(expected, rel=0.15)
    assert found["rank_correlation_nearby"] > 0.9 > found["rank_correlation_pixel"] > 0.3
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<h2>Trust</h2>" in page
    assert "Calibration of the expected error" in page
    assert json.loads((tmp_path / "out" / "report.json").read_text())["trust"] == found


def test_a_map_that_says_nothing_ranks_nothing(judged, tmp_path):
    tifffile.imwrite(judged["trust"], np.full((2, 192, 192), 5, np.float32), photometric="minisblack")
    # one slice: the next is fitted with another gain
    done = evaluate(judged["sr"], tmp_path / "out", reference=judged["reference"], trust=judged["trust"], slices=":1")
    assert done["trust"]["rank_correlation_nearby"] is None


def test_a_map_without_a_reference_or_of_another_result_is_refused(judged, tmp_path):
    with pytest.raises(UsageError, match="judged by the true error"):
        evaluate(judged["sr"], tmp_path / "out", trust=judged["trust"])
    tifffile.imwrite(judged["trust"], np.zeros((2, 64, 64), np.float32), photometric="minisblack")
    with pytest.raises(UsageError, match=r"`trust` is \(2, 64, 64\) and SR \(2, 192, 192\)"):
        evaluate(judged["sr"], tmp_path / "out", reference=judged["reference"], trust=judged["trust"])
    assert not (tmp_path / "out").exists()

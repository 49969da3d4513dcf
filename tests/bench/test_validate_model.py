"""The script that says whether a model may replace the shipped one."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from emsr_fast.io.resize import bicubic

MEASURE = Path(__file__).parents[2] / "bench" / "measure"


class Enlarging:
    """An engine that enlarges with ``method``, LR in [0, 1] to HR."""

    def __init__(self, method):
        self._method = method

    def run(self, batch):
        return self._method(batch[0, 0])[None, None]


def repeated(low):
    return low.repeat(3, axis=0).repeat(3, axis=1)


def smoothed(low):
    return bicubic(ndimage.gaussian_filter(low, 0.6), 3)


@pytest.fixture
def script(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(MEASURE), *sys.path])
    spec = importlib.util.spec_from_file_location("validate_model", MEASURE / "validate_model.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    rng = np.random.default_rng(0)
    scene = 128 + 400 * ndimage.gaussian_filter(rng.standard_normal((270, 270)), 6)
    one, two = (np.float32(scene + 3 * rng.standard_normal(scene.shape)) for _ in range(2))
    sets = [("FIB-SEM, next slice", [(one, two)]), ("larva ssTEM, itself", [(one, one)])]
    monkeypatch.setattr(found, "validation_sets", lambda data: iter(sets))
    return found


def test_a_better_model_meets_the_demands_on_the_sets(script, capsys):
    below, lost, noisy, everywhere = script.judged_sets(Enlarging(repeated), Enlarging(smoothed), Path())
    assert lost[0]
    assert noisy[0]
    assert everywhere[0]
    # smoothing loses detail where LR has no noise
    assert not below[0]
    assert capsys.readouterr().out.count("larva ssTEM, itself") == 2


def test_a_worse_model_does_not(script):
    judged = list(script.judged_sets(Enlarging(smoothed), Enlarging(repeated), Path()))
    assert not any(met for met, _ in judged)


def test_the_gain_at_every_reduction_is_compared_with_the_best(script, monkeypatch):
    y, x = np.mgrid[:270, :270]
    slow = np.float32(128 + 60 * np.sin(y / 60) * np.cos(x / 60))
    monkeypatch.setattr(script, "validation_sets", lambda data: iter([("larva ssTEM, itself", [(slow, slow)])]))
    # smoothing pays where LR is noisy, at every size
    _, (met, measured) = script.judged_reductions(Enlarging(smoothed), Path())
    assert met
    assert measured.count("+") == 8
    # and where it pays at one size only
    fine = Enlarging(lambda low: smoothed(low) if low.shape[0] == 90 else bicubic(low, 3))
    assert [met for met, _ in script.judged_reductions(fine, Path())][1] is False


@pytest.mark.parametrize(
    ("method", "not_met"),
    [
        (smoothed, []),
        (repeated, ["pure noise"]),
        (lambda low: smoothed(low) + 0.6 / 255, ["a constant", "both sides", "a grid"]),
    ],
)
def test_plain_images_keep_their_grey_level_and_noise_gets_flatter(script, method, not_met):
    failed = [measured for met, measured in script.judged_plain(Enlarging(method)) if not met]
    assert sorted({text for text in not_met for one in failed if one.startswith(text)}) == sorted(not_met)
    assert all(one.startswith(tuple(not_met)) for one in failed)

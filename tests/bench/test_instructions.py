"""The kernels execute no more instructions than was recorded: the same on every machine, however busy."""

import importlib.util
import json
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "bench" / "guard" / "instructions.py"
spec = importlib.util.spec_from_file_location("instructions", FILE)
instructions = importlib.util.module_from_spec(spec)
spec.loader.exec_module(instructions)


@pytest.fixture(scope="module")
def module():
    if reason := instructions.why_not():
        pytest.skip(reason)
    return instructions.module_path()


@pytest.fixture(scope="module")
def counted(module):
    return {isa: instructions.count(module, isa) for isa in instructions.ISAS}


def test_no_kernel_executes_more_than_was_recorded(module, counted):
    compiler = instructions.compiler_of(module)
    if reason := instructions.why_not_compared(compiler):
        pytest.skip(reason)
    recorded = json.loads(instructions.RECORDED.read_text())[compiler]
    for isa in instructions.ISAS:
        lines, failed = instructions.differences(recorded[isa], counted[isa])
        assert not failed, "\n".join(lines)


def test_only_the_kernels_are_counted(counted):
    # 32 x 32 px of 64 channels hold 64 Ki values of 4 bytes: with vectors of 32 bytes, two convolutions and a gate
    # cannot take fewer instructions than their products, nor ten times as many
    products = 2 * 64 * 64 * 64 / 36 * 32 * 32
    if "avx2" in counted:
        assert products / 8 < counted["avx2"]["edge_gate 64"] < 10 * products / 8
    assert all(count > 1000 for kernels in counted.values() for count in kernels.values())


def test_five_per_cent_more_is_seen():
    counts = {"conv": 1_000_000, "gate": 2_000_000}
    lines, failed = instructions.differences(counts, {"conv": 1_050_000, "gate": 1_900_000})
    assert not failed
    assert lines[1].endswith("0.950  fewer: record again")
    lines, failed = instructions.differences(counts, {"conv": 1_051_000, "gate": 2_000_000})
    assert failed
    assert lines[0].endswith("1.051  MORE")


def test_a_kernel_that_is_not_counted_is_no_success():
    assert instructions.differences({"conv": 1}, {}) == (["conv: no longer counted: use --record"], True)
    assert instructions.differences({}, {"conv": 1}) == (["conv: not recorded: use --record"], True)


def test_an_unknown_compiler_is_named_with_what_to_do():
    reason = instructions.why_not_compared("GCC 99.1, x86_64")
    assert "no counts are recorded for GCC 99.1, x86_64" in reason
    assert "--record" in reason

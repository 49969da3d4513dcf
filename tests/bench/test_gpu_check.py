"""The GPU check without a GPU: it says so, its steps do not hide each other, its benches run at small sizes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from emsr_fast.ops import OPERATORS

BENCH = Path(__file__).parents[2] / "bench" / "gpu"


@pytest.fixture
def bench(monkeypatch):
    """Import a script of bench/gpu/ as its neighbours do."""
    monkeypatch.syspath_prepend(str(BENCH))
    return __import__


def test_without_a_gpu_one_line_says_so():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = subprocess.run([sys.executable, str(BENCH / "check.py")], capture_output=True, text=True)
    assert done.returncode == 5
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        f"gpu-check: nothing was checked: torch {torch.__version__} sees no CUDA device"
    ]


def python(code):
    return (sys.executable, "-c", code)


def test_a_failing_step_does_not_hide_the_later_ones(bench, tmp_path, capsys):
    check = bench("check")
    todo = (
        check.Step("fails", python("print('first'); raise SystemExit(3)"), 30),
        check.Step("missing", ("/nonexistent/tool",), 30),
        check.Step("without", python("1 / 0"), 30, why_not=lambda: "no such tool"),
        check.Step("skips", python("print('9 skipped')"), 30, r"\d+ passed"),
        check.Step("passes", python("print('one'); print('two')"), 30),
    )
    outcomes = check.run_all(todo, tmp_path, dict(os.environ))
    results = [done.result for done in outcomes]
    assert results[0] == "failed (3)"
    assert results[1].startswith("failed ([Errno 2]")
    assert results[2:] == ["not run: no such tool", "failed (ran nothing)", "passed"]
    assert [done.good for done in outcomes] == [False, False, False, False, True]
    assert outcomes[4].last_line == "two"
    assert (tmp_path / "passes.log").read_text() == "one\ntwo\n"
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [step.name for step in todo]


def test_a_step_over_its_time_is_ended_with_all_it_started(bench, tmp_path):
    check = bench("check")
    sleeper = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
    step = check.Step("slow", python(f"{sleeper}; print(p.pid, flush=True); p.wait()"), 3)
    started = time.monotonic()
    done = check.run(step, tmp_path, dict(os.environ))
    assert done.result == "over its time (3 s)"
    assert time.monotonic() - started < 20
    child = Path("/proc") / done.last_line
    deadline = time.monotonic() + 10
    while child.exists() and "Z" not in (child / "stat").read_text().split()[2]:
        assert time.monotonic() < deadline, "the child of a step outlived it"
        time.sleep(0.05)


def test_a_step_over_its_time_may_say_what_it_knows(bench, tmp_path):
    check = bench("check")
    code = "import time\ntry:\n  print('begun', flush=True); time.sleep(60)\nfinally:\n  print('2 failed')"
    done = check.run(check.Step("slow", python(code), 3), tmp_path, dict(os.environ))
    assert done.result == "over its time (3 s)"
    assert "2 failed" in (tmp_path / "slow.log").read_text()


@pytest.mark.cuda
def test_what_waits_for_the_device_is_not_captured(bench):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    speed, gpu = bench("speed"), torch.device("cuda")
    with torch.inference_mode():
        with pytest.raises(RuntimeError, match="synchroniz"):
            speed.captured(lambda: torch.zeros(1, device=gpu).new_tensor([1.0, 2.0]), gpu)
        # the allocator is as it was
        torch.cuda.empty_cache()
        speed.captured(lambda: torch.zeros(1, device=gpu) + 1, gpu)()


def test_the_steps_end_within_eight_minutes(bench):
    check = bench("check")
    assert sum(step.limit_s for step in check.steps()) <= 480
    assert [step.name for step in check.steps()][:2] == ["build", "tests"]
    assert "--no-index" in check.steps()[0].command


def test_every_test_for_a_gpu_is_among_the_checks(bench):
    chosen = {Path(path).name for path in bench("check").gpu_tests()}
    assert {"test_atrous.py", "test_cuda_graphs.py", "test_gpu_convolutions.py"} <= chosen
    for path in Path(__file__).parents[1].rglob("test_*.py"):
        assert path.name in chosen or "pytest.mark.cuda" not in path.read_text()


def test_what_no_gpu_has_confirmed_comes_last_and_alone(bench):
    names = [step.name for step in bench("check").steps()]
    assert names[-2:] == ["on request", "bench on request"]
    tests, on_request = (
        {Path(part).name for part in step.command if part.endswith(".py")}
        for step in bench("check").steps()
        if step.name in ("tests", "on request")
    )
    assert on_request == {"test_gpu_hopper.py"}
    assert not tests & on_request
    exercise = bench("exercise")
    assert exercise.exercise("cpu", ("cpp",), torch.float32, on_request=True) == []


def test_every_operator_is_exercised(bench):
    exercise = bench("exercise")
    done = exercise.exercise("cpu", ("cpp", "reference"), torch.float32)
    assert set(done) == {f"{operator} {backend}" for operator in OPERATORS for backend in ("cpp", "reference")}


def test_benches_write_results_and_a_table(bench, tmp_path):
    from emsr_fast import EmsrConfig

    speed, cpu = bench("speed"), torch.device("cpu")
    path, machine = tmp_path / "results" / "CPU.json", {"device": "CPU"}
    with torch.inference_mode():
        rows = speed.operators(cpu, torch.float32, (12, 16), rounds=2)
        speed.save_section(path, "operators", rows, machine)
        config = EmsrConfig(features=16, blocks=1, heads=4)

        def save(rows):
            speed.save_section(path, "network", rows, machine)

        speed.network(cpu, torch.float32, config, (8, 12), 2, save)
        rows = speed.operators(cpu, torch.float32, (9, 10), 2, on_request=True)
        rows.append(speed.network_on_request(cpu, torch.float32, config, 8, 2))
        speed.save_section(path, "on_request", rows, machine)
    found = json.loads(path.read_text())
    assert {row["what"] for row in found["on_request"]} == {"conv3x3", "residual_block", "network"}
    assert set(found["on_request"][-1]["ms"]) == {"ours", "ours, CUDA convolutions"}
    assert {row["what"] for row in found["operators"]} == set(OPERATORS)
    assert all({"cpp", "eager"} <= set(row["ms"]) for row in found["operators"])
    (engine,) = (row for row in found["network"] if row["what"] == "engine")
    assert set(engine["ms"]) == {"ours, float32, in flight", "ours, float32, one by one"}
    last = found["network"][-1]
    # a CPU has no TF32 to tell from it
    assert set(last["ms"]) == set(last["error"]) == {"ours", "published, IEEE float32", "eager"}
    assert last["error"]["published, IEEE float32"] == 0
    assert last["error"]["ours"] < 1e-4
    for name, ms in last["ms"].items():
        assert ms > 0
        assert last["LR Mpx/s"][name] == pytest.approx(12 * 12 / 1e3 / ms)
    table = path.with_suffix(".md").read_text().splitlines()
    rows = (*found["operators"], *found["network"], *found["on_request"])
    assert len(table) == 4 + sum(len(row["ms"]) for row in rows)
    # figures of other code are not kept beside new ones
    speed.save_section(path, "network", [], {**machine, "commit": "another"})
    assert set(json.loads(path.read_text())) == {"machine", "network"}

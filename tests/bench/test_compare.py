"""The speed guard, on real timed processes: a slow-down by two is seen, an identical pair passes every time."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "bench" / "guard" / "compare.py"
spec = importlib.util.spec_from_file_location("compare", FILE)
compare = importlib.util.module_from_spec(spec)
spec.loader.exec_module(compare)

BUSY = "def work():\n    total = 0\n    for i in range(100_000):\n        total += i * i\n    return total\n"
# waits, so that a busy machine cannot hide what is injected
WAITING = "import time\n\ndef work():\n    time.sleep({seconds})\n"
BENCH = "import work\n\ndef bench_work(benchmark):\n    benchmark(work.work)\n"
TIMER = """
import json, time, work
least = 9.0
for _ in range(10):
    start = time.perf_counter()
    work.work()
    least = min(least, time.perf_counter() - start)
print(json.dumps({"work": least, "short": least / 1000}))
"""


def installation(folder, work):
    folder.mkdir()
    (folder / "work.py").write_text(work)
    return folder


def timed(site):
    """Time the work of ``site`` in a process of its own, without pytest's start."""
    command = [sys.executable, "-S", "-c", TIMER]
    done = subprocess.run(command, env=compare.environment(site), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_a_slow_down_by_two_is_seen_through_pytest_benchmark(tmp_path, capsys):
    base = installation(tmp_path / "base", WAITING.format(seconds=0.01))
    head = installation(tmp_path / "head", WAITING.format(seconds=0.02))
    benches = tmp_path / "bench"
    benches.mkdir()
    (benches / "bench_work.py").write_text(BENCH)
    (tmp_path / "pyproject.toml").write_text(
        '[tool.pytest.ini_options]\npython_files = ["bench_*.py"]\npython_functions = ["bench_*"]\n'
    )
    results = compare.interleaved(
        lambda site: compare.run_benches(sys.executable, benches, "not reference", site), base, head
    )
    assert compare.report(*results) == 1
    assert "SLOWER  bench_work.py::bench_work" in capsys.readouterr().out
    # and nothing was found by mistake the other way round
    assert compare.report(*reversed(results)) == 0


def test_an_identical_pair_passes_ten_times_of_ten(tmp_path):
    base, head = installation(tmp_path / "base", BUSY), installation(tmp_path / "head", BUSY)
    assert [compare.report(*compare.interleaved(timed, base, head)) for _ in range(10)] == [0] * 10


@pytest.mark.parametrize(
    ("base", "head", "slower"),
    [
        ([10, 11, 12], [15.1, 30, 30], True),
        ([10, 11, 12], [14.9, 30, 30], False),  # its fastest run is within 25 % of the base's slowest
        ([10, 11, 30], [20, 20, 20], False),  # one disturbed run of the base is enough not to know
        ([1, 1, 1.9], [9, 9, 9], False),  # below 2 ms
    ],
)
def test_a_regression_is_a_gap_between_all_runs(base, head, slower):
    verdict = compare.Verdict("bench", [t / 1e3 for t in base], [t / 1e3 for t in head])
    assert verdict.slower == slower


def test_a_bench_that_fails_on_head_is_no_success(capsys):
    runs = [{"a": 0.01, "b": 0.01}] * 3
    assert compare.report(runs, [{"a": 0.01}] * 3) == 1
    assert "FAILED on head, ran on base: b" in capsys.readouterr().out
    assert compare.report([{"a": 0.01}] * 3, runs) == 0
    assert "new, not compared: b" in capsys.readouterr().out


def clone(tmp_path, commits):
    """Return a repository with ``compare.py`` and a number of commits, each of which changes the package."""
    root = tmp_path / "clone"
    (root / "bench" / "guard").mkdir(parents=True)
    (root / "emsr_fast").mkdir()
    (root / "bench" / "guard" / "compare.py").write_text(FILE.read_text())
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    for number in range(commits):
        (root / "emsr_fast" / "file").write_text(str(number))
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "-qm", str(number)], check=True)
    return root, git


def ran(root, *arguments, **more):
    command = [sys.executable, str(root / "bench" / "guard" / "compare.py"), *arguments]
    variables = {k: v for k, v in compare.environment(root).items() if k != "EMSR_BENCH_BASE"} | more
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


def test_a_clone_without_history_is_skipped_with_one_line(tmp_path):
    root, git = clone(tmp_path, 1)
    done = ran(root)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("compare: skipped, this clone has no commit before HEAD")
    assert len(done.stdout.splitlines()) == 1
    # and one that changes no code
    (root / "README.md").write_text("words")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "words"], check=True)
    done = ran(root)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("compare: skipped, nothing that could change speed differs")


def test_commits_that_are_not_there_are_named(tmp_path):
    root, _ = clone(tmp_path, 2)
    done = ran(root, "nowhere")
    assert done.returncode == 1
    assert "does not have both nowhere and HEAD" in done.stderr
    done = ran(root, EMSR_BENCH_BASE="elsewhere")
    assert done.returncode == 1
    assert "EMSR_BENCH_BASE is 'elsewhere'" in done.stderr


def test_what_cannot_be_installed_is_an_error_and_no_pass(tmp_path):
    root, _ = clone(tmp_path, 2)  # no setup.py in it
    done = ran(root)
    assert done.returncode == 2
    assert "cannot install both commits" in done.stderr

"""Compare the speed of two commits; exit 1 where HEAD is slower.

    python bench/guard/compare.py [BASE [HEAD]]

Both are installed side by side from what git holds, with the dependencies of the Python that runs this, and HEAD's
bench files time both, interleaved, three runs each. A run's figure for a bench is its fastest round. A regression is a
bench whose fastest run on HEAD is slower than its slowest on BASE by more than 25 %; benches below 2 ms are left out. A
disturbed run may hide a regression, but none can make one. Stored results of other machines play no part.

BASE is by default $EMSR_BENCH_BASE, or where HEAD left origin's main branch, or HEAD's first parent: what passed last.
Exit codes: 0 no regression, or nothing to compare (it says why), 1 a regression or a bench that fails on HEAD, 2 a
commit that cannot be installed.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
RUNS, SLOWER, SHORTEST_S = 3, 1.25, 2e-3
# what changes speed; a commit that touches nothing here cannot be slower
PACKAGE = ("emsr_fast", "csrc", "kernels", "CMakeLists.txt", "setup.py", "pyproject.toml", "constraints.txt", "bench")
NATIVE = ("csrc", "kernels", "CMakeLists.txt", "setup.py")
# not torch's own operators, which do not become slower by what we commit, nor one operator at many sizes
SELECTED = "not reference and not plain and not bf16 and not paper_tile and not install"

Seconds = dict[str, float]  # of one run, by bench


class Verdict(NamedTuple):
    """One bench on both commits."""

    name: str
    base: list[float]  # seconds, by run
    head: list[float]

    @property
    def slower(self) -> bool:
        return max(self.base) >= SHORTEST_S and min(self.head) > SLOWER * max(self.base)

    def line(self) -> str:
        low, high = min(self.head) / max(self.base), max(self.head) / min(self.base)
        kind = "SLOWER" if self.slower else "short" if max(self.base) < SHORTEST_S else ""
        times = [f"{1e3 * min(runs):9.2f} to {1e3 * max(runs):9.2f}" for runs in (self.base, self.head)]
        return f"{times[0]}  {times[1]}  {low:5.2f} to {high:5.2f}  {kind:6}  {self.name}"


def interleaved(once: Callable[[Path], Seconds], base: Path, head: Path, runs: int = RUNS) -> list[list[Seconds]]:
    """Return what ``once`` measures with each of two installations, ``runs`` times in turn: [of base, of head]."""
    results: list[list[Seconds]] = [[], []]
    for turn in range(runs):
        pair = ((0, base), (1, head)) if turn % 2 == 0 else ((1, head), (0, base))
        for which, site in pair:
            results[which].append(once(site))
    return results


def verdicts(base: Sequence[Seconds], head: Sequence[Seconds]) -> list[Verdict]:
    """Return a verdict per bench that every run of both commits has."""
    common = set.intersection(*(set(run) for run in (*base, *head)))
    return [Verdict(name, [run[name] for run in base], [run[name] for run in head]) for name in sorted(common)]


def run_benches(python: str, benches: Path, selected: str, site: Path) -> Seconds:
    """Return the fastest round of every bench in the folder ``benches``, run with the package in ``site``."""
    with tempfile.TemporaryDirectory() as folder:  # an empty one: Python would find a package in it
        report = Path(folder) / "report.json"
        command = [python, "-c", "import sys, pytest; sys.exit(pytest.main())", str(benches), "-k", selected]
        command += ["--benchmark-enable", "--benchmark-only", f"--benchmark-json={report}", "-q", "--no-header"]
        command += ["--benchmark-min-rounds=5", "--benchmark-max-time=0.2", "-p", "no:cacheprovider"]
        if (benches.parent / "pyproject.toml").exists():
            command += ["-c", str(benches.parent / "pyproject.toml"), "--continue-on-collection-errors"]
        done = subprocess.run(command, env=environment(site), cwd=folder, capture_output=True, text=True, check=False)
        if not report.exists() or not report.stat().st_size:
            raise LookupError(f"no bench ran with {site.name}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        found = json.loads(report.read_text())["benchmarks"]
    if done.returncode:
        print(f"some benches do not run with {site.name}:\n{done.stdout[-1500:]}", file=sys.stderr)
    return {bench["fullname"].partition("bench/")[2] or bench["fullname"]: bench["stats"]["min"] for bench in found}


def environment(site: Path) -> dict[str, str]:
    # a worker of pytest-xdist, in which a test may call this, would time nothing
    kept = {name: value for name, value in os.environ.items() if name != "PYTEST_XDIST_WORKER"}
    return {**kept, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def git(*arguments: str) -> bytes:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=True).stdout


def commit_of(name: str) -> str | None:
    """Return the full hash of a commit, or None if this clone does not have it."""
    try:
        return git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").decode().strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def commit_before(head: str) -> str | None:
    """Return the commit that passed last before ``head``, or None if this clone does not have one."""
    if asked := os.environ.get("EMSR_BENCH_BASE"):
        return commit_of(asked) or sys.exit(f"EMSR_BENCH_BASE is {asked!r}: this clone has no such commit")
    main = next((name for name in ("origin/HEAD", "origin/main") if commit_of(name)), None)
    if main:
        left = subprocess.run(
            ["git", "-C", str(ROOT), "merge-base", main, head], capture_output=True, text=True, check=False
        ).stdout.strip()
        if left and left != head:
            return left
    return commit_of(f"{head}^")


def same(base: str, head: str, paths: Sequence[str]) -> bool:
    return not git("diff", "--name-only", base, head, "--", *paths)


def install(commit: str, folder: Path, native_from: Path | None) -> Path:
    """Install ``commit`` into ``folder``/site, which is returned; its compiled module built, or from another site."""
    sources, site = folder / "sources", folder / "site"
    with tarfile.open(fileobj=io.BytesIO(git("archive", commit))) as archive:
        archive.extractall(sources, filter="data")
    built = {"EMSR_FAST_NO_NATIVE": "1"} if native_from else {}
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(sources)],
        env={"EMSR_CUDA": "OFF", **os.environ, **built},
        check=True,
    )
    if native_from:
        for module in (native_from / "emsr_fast").glob("_C*.so"):
            shutil.copy2(module, site / "emsr_fast")
    where = [sys.executable, "-c", "import emsr_fast; print(emsr_fast.__file__)"]
    loaded = subprocess.run(where, env=environment(site), cwd=folder, capture_output=True, text=True, check=True).stdout
    if not loaded.startswith(str(site)):
        raise OSError(f"{commit} was installed into {site}, but Python loads {loaded.strip()}")
    return site


def compare(base: str, head: str, selected: str) -> int:
    with tempfile.TemporaryDirectory() as name:
        folders = Path(name) / "base", Path(name) / "head"
        try:
            first = install(base, folders[0], None)
            second = install(head, folders[1], first if same(base, head, NATIVE) else None)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"compare: cannot install both commits: {error}", file=sys.stderr)
            return 2
        benches = folders[1] / "sources" / "bench"
        results = interleaved(lambda site: run_benches(sys.executable, benches, selected, site), first, second)
    return report(*results)


def report(base: Sequence[Seconds], head: Sequence[Seconds]) -> int:
    """Print a line per bench; return the exit code."""
    found = verdicts(base, head)
    print("fastest to slowest run, ms: base; head; head / base")
    for verdict in found:
        print(verdict.line())
    new = set.intersection(*map(set, head)) - {verdict.name for verdict in found}
    gone = set.union(*map(set, base)) - set.intersection(*map(set, head))
    if new:
        print(f"new, not compared: {', '.join(sorted(new))}")
    if gone:
        print(f"FAILED on head, ran on base: {', '.join(sorted(gone))}")
    slower = [verdict.name for verdict in found if verdict.slower]
    print(f"{len(found)} benches, {len(slower)} slower by more than {100 * (SLOWER - 1):.0f} %")
    return 1 if slower or gone else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", nargs="?", help="commit")
    parser.add_argument("head", nargs="?", default="HEAD", help="commit")
    parser.add_argument("-k", dest="selected", default=SELECTED, help="which benches, as in pytest -k")
    arguments = parser.parse_args()
    head = commit_of(arguments.head)
    base = commit_of(arguments.base) if arguments.base else head and commit_before(head)
    if head is None or base is None:
        if arguments.base:
            sys.exit(f"compare: this clone does not have both {arguments.base} and {arguments.head}")
        print("compare: skipped, this clone has no commit before HEAD: fetch its history, or set EMSR_BENCH_BASE")
        return 0
    if same(base, head, PACKAGE):
        print(f"compare: skipped, nothing that could change speed differs between {base[:12]} and {head[:12]}")
        return 0
    print(f"compare: base {base[:12]}, head {head[:12]}", flush=True)
    return compare(base, head, arguments.selected)


if __name__ == "__main__":
    sys.exit(main())

"""The cache gives what was put in, whole and once, whatever happens to its files and processes."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from emsr_fast.cli import main
from emsr_fast.engine import cache
from emsr_fast.engine.pruning import prune
from emsr_fast.errors import BackendError

KEY = {"emsr_fast": "1.0", "model": "m", "precision": "fp32", "shapes": "any", "weights": "abc"}


class FakeProvider:
    """Builds nothing real: bytes that say how often it was asked. For the cache's own logic only."""

    def __init__(self):
        self.builds = 0

    def __call__(self):
        self.builds += 1
        return f"engine {self.builds}".encode(), {"layers": self.builds}


def test_the_second_time_nothing_is_built():
    provider = FakeProvider()
    first, payload = cache.fetch("engine", KEY, provider)
    second, again = cache.fetch("engine", KEY, provider)
    assert provider.builds == 1
    assert payload == again == b"engine 1"
    assert second.facts == {"layers": 1}
    assert first.payload_path == second.payload_path


def test_a_shared_cache_can_be_read_by_others():
    entry, _ = cache.fetch("engine", KEY, FakeProvider())
    assert [path.stat().st_mode & 0o777 for path in (entry.payload_path, entry.path)] == [0o644, 0o644]


@pytest.mark.parametrize("name", sorted(KEY))
def test_whatever_changes_in_the_key_is_a_miss(name):
    provider = FakeProvider()
    cache.fetch("engine", KEY, provider)
    cache.fetch("engine", {**KEY, name: "another"}, provider)
    assert provider.builds == 2
    assert len(cache.entries()) == 2


def damage(entry, how):
    if how == "cut":
        entry.payload_path.write_bytes(b"eng")
    elif how == "one bit":
        entry.payload_path.write_bytes(b"engine 0")
    elif how == "no payload":
        entry.payload_path.unlink()
    elif how == "no JSON":
        entry.path.write_text("{")
    elif how == "other JSON":
        entry.path.write_text('{"payload": "../../etc/passwd"}')
    elif how == "foreign":
        other = json.loads(entry.path.read_text())
        other["key"]["model"] = "of another machine"
        entry.path.write_text(json.dumps(other))


@pytest.mark.parametrize("how", ["cut", "one bit", "no payload", "no JSON", "other JSON", "foreign"])
def test_what_is_damaged_or_foreign_is_built_again_with_a_notice(how):
    provider, lines = FakeProvider(), []
    entry, _ = cache.fetch("engine", KEY, provider)
    damage(entry, how)
    entry, payload = cache.fetch("engine", KEY, provider, say=lines.append)
    assert payload == b"engine 2"
    assert "was not used (" in lines[0]
    assert cache.fetch("engine", KEY, provider)[1] == b"engine 2"


@pytest.mark.parametrize("suffix", ["engine", "json"])
def test_a_broken_link_is_no_entry(suffix):
    provider = FakeProvider()
    entry, _ = cache.fetch("engine", KEY, provider)
    entry.beside(f".{suffix}").unlink()
    entry.beside(f".{suffix}").symlink_to("nowhere")
    assert cache.fetch("engine", KEY, provider)[1] == cache.fetch("engine", KEY, provider)[1] == b"engine 2"


def test_what_a_runtime_refuses_is_built_again(cache_of_its_own):
    provider, lines = FakeProvider(), []
    cache.fetch("engine", KEY, provider)
    _, payload = cache.fetch("engine", KEY, provider, say=lines.append, refused="wrong driver")
    assert payload == b"engine 2"
    assert "(wrong driver)" in lines[0]
    assert not list(cache_of_its_own.glob(".emsr*"))


def test_a_failed_build_leaves_nothing(cache_of_its_own):
    def fail():
        raise BackendError("no memory")

    with pytest.raises(BackendError, match="no memory"):
        cache.fetch("engine", KEY, fail)
    assert {path.suffix for path in cache_of_its_own.iterdir()} <= {".lock"}


BUILDER = """
import os, sys, time
from pathlib import Path
from emsr_fast.engine import cache
from emsr_fast.engine.pruning import prune

def slow():
    print("building", flush=True)
    time.sleep(float(sys.argv[1]))
    return os.urandom(100_000), {}

_, payload = cache.fetch("engine", {"emsr_fast": "1.0"}, slow, say=lambda line: print(line, flush=True))
print("got", payload[:8].hex(), flush=True)
"""


def builder(seconds):
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def test_of_two_processes_one_builds_and_both_use_it():
    both = [builder(3), builder(3)]
    said = [process.communicate(timeout=60)[0].splitlines() for process in both]
    assert sorted(lines.count("building") for lines in said) == [0, 1]
    assert said[0][-1] == said[1][-1]
    waiting = next(lines for lines in said if "building" not in lines)
    # if the machine was so slow that it came after the other had finished, it had nothing to wait for
    assert waiting[0].startswith(("cache   another process is making", "got"))


def test_a_killed_builder_leaves_the_way_free(cache_of_its_own):
    killed = builder(60)
    assert killed.stdout.readline() == "building\n"
    killed.send_signal(signal.SIGKILL)
    killed.wait(10)
    killed.stdout.close()
    start = time.monotonic()
    said = builder(0).communicate(timeout=60)[0].splitlines()
    assert said[0] == "building"
    assert time.monotonic() - start < 30
    assert len(cache.entries()) == 1


def test_prune_removes_what_is_of_no_use_and_nothing_else(cache_of_its_own, capsys):
    provider = FakeProvider()
    kept, _ = cache.fetch("onnx", {**KEY, "emsr_fast": __import__("emsr_fast").__version__}, provider)
    old, _ = cache.fetch("engine", KEY, provider)
    old.beside(".runtime").write_bytes(b"kernels")
    damaged, _ = cache.fetch("engine", {**KEY, "model": "x"}, provider)
    damaged.path.write_text("{")
    thesis = cache_of_its_own / "thesis.json"
    thesis.write_text("{}")
    left = cache_of_its_own / f".{'0' * 32}.onnx.partial-1-0a1b2c"
    left.touch()
    os.utime(left, (0, 0))
    assert main(["cache", "prune", "--json"]) == 0
    removed = {os.path.basename(path) for path in json.loads(capsys.readouterr().out)["removed"]}
    assert {old.payload_path.name, old.path.name, damaged.path.name, left.name} <= removed
    names = {path.name for path in cache_of_its_own.iterdir()}
    assert {thesis.name, kept.payload_path.name, kept.path.name} <= names
    assert not any(name.startswith((old.path.stem, damaged.path.stem)) for name in names)
    assert main(["cache", "prune", "--all"]) == 0
    assert {path.name for path in cache_of_its_own.iterdir()} == {thesis.name}


@pytest.mark.parametrize("wrong", [{"key": 5}, {"facts": 3}, {"facts": {"truth": "yes"}}, {"size": "x"}])
def test_a_description_with_values_of_other_types_is_no_entry(cache_of_its_own, wrong, capsys):
    entry, _ = cache.fetch("onnx", {"model": "m"}, lambda: (b"graph", {}))
    entry.path.write_text(json.dumps(json.loads(entry.path.read_text()) | wrong))
    lines = []
    if "key" not in wrong:
        cache.fetch("onnx", {"model": "m"}, lambda: (b"graph", {}), say=lines.append)
        assert "made again" in lines[0]
        entry.path.write_text(json.dumps(json.loads(entry.path.read_text()) | wrong))
    assert main(["cache", "ls"]) == 0
    assert main(["cache", "prune"]) == 0
    assert not entry.path.exists()


def test_an_entry_that_is_being_made_is_not_pruned():
    entry, _ = cache.fetch("engine", KEY, FakeProvider())
    with cache.locked(entry.payload_path):
        assert prune(everything=True) == []
    assert entry.payload_path.exists()


def test_unused_entries_go_by_their_last_use(capsys):
    provider = FakeProvider()
    entry, _ = cache.fetch("engine", KEY, provider)
    other, _ = cache.fetch("engine", {**KEY, "model": "n"}, provider)
    os.utime(entry.path, (time.time() - 10 * 86400,) * 2)
    prune(unused_days=5)
    assert [found.key for found in cache.entries()] == [other.key]


def test_ls_tells_what_is_there(capsys, cache_of_its_own):
    entry, _ = cache.fetch(
        "engine", {**KEY, "provider": "tensorrt", "provider_version": "11", "gpu": "L4"}, FakeProvider()
    )
    entry.facts["truth"] = {"here": {"passed": False}}
    entry.write()
    assert main(["cache", "ls"]) == 0
    shown = capsys.readouterr()
    assert "tensorrt 11 for L4" in shown.out
    assert "truth test FAILED" in shown.out
    assert str(cache_of_its_own) in shown.err
    assert main(["cache", "ls", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["entries"][0]["key"]["gpu"] == "L4"


def test_a_cache_that_cannot_be_written_is_one_clear_line(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("EMSR_FAST_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(BackendError, match=r"cannot be written .* set EMSR_FAST_CACHE"):
        cache.fetch("engine", KEY, FakeProvider())


def test_the_folder_follows_the_environment(monkeypatch):
    monkeypatch.delenv("EMSR_FAST_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert str(cache.cache_folder()) == "/somewhere/emsr_fast"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/ana")
    assert str(cache.cache_folder()) == "/home/ana/.cache/emsr_fast"

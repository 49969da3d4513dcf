"""What somebody else could have written is not taken from the cache: it would run, and certify itself."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from emsr_fast import _backends, ownership
from emsr_fast.cli import main
from emsr_fast.convert.onnx_model import to_onnx
from emsr_fast.engine import cache
from emsr_fast.engine.factory import open_engine
from emsr_fast.errors import BackendError
from emsr_fast.model import Emsr, EmsrConfig

STRANGER = 54321
KEY = {"emsr_fast": "1.0", "model": "m", "precision": "fp32", "shapes": "any"}
needs_superuser = pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser can make files of another user")


def give_to_stranger(*paths):
    for path in paths:
        os.chown(path, STRANGER, STRANGER)


def open_to_all(*paths):
    for path in paths:
        path.chmod(0o777)


def open_to_a_group(*paths):
    for path in paths:
        os.chown(path, -1, STRANGER)
        path.chmod(0o775)


UNSAFE = [pytest.param(give_to_stranger, marks=needs_superuser), open_to_all]
UNSAFE += [pytest.param(open_to_a_group, marks=needs_superuser)]


def make():
    return b"engine", {}


@pytest.mark.parametrize("unsafe", UNSAFE)
def test_a_folder_that_others_can_write_to_is_refused_by_whatever_uses_it(cache_of_its_own, unsafe, capsys):
    cache.fetch("engine", KEY, make)
    unsafe(cache_of_its_own)
    with pytest.raises(BackendError, match=rf"{cache_of_its_own} is not used: .*; set EMSR_FAST_CACHE to a folder"):
        cache.fetch("engine", KEY, make)
    for command in ("ls", "prune"):
        assert main(["cache", command]) == 5
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert main(["doctor"]) == 0
    assert f"{cache_of_its_own} is not used: " in capsys.readouterr().out


@pytest.mark.parametrize("unsafe", UNSAFE)
@pytest.mark.parametrize("which", ["payload", "description"])
def test_an_entry_that_others_can_write_to_is_made_again(cache_of_its_own, unsafe, which):
    entry, _ = cache.fetch("engine", KEY, make)
    unsafe(entry.payload_path if which == "payload" else entry.path)
    lines = []
    entry, payload = cache.fetch("engine", KEY, lambda: (b"new engine", {}), say=lines.append)
    assert payload == b"new engine"
    assert "was not used (" in lines[0]
    assert entry.payload_path.stat().st_uid == entry.path.stat().st_uid == os.geteuid()
    assert cache.fetch("engine", KEY, make)[1] == b"new engine"


@pytest.mark.parametrize("unsafe", UNSAFE)
def test_timings_and_kernels_that_others_can_write_to_are_not_used(cache_of_its_own, unsafe):
    path = cache.timing_cache({"gpu": "L4"})
    assert cache.kept(path) == b""
    cache.keep(path, b"timings")
    assert cache.kept(path) == b"timings"
    unsafe(path)
    lines = []
    assert cache.kept(path, lines.append) == b""
    assert "was not used (" in lines[0]


# a network exported twice: some 10 s
@pytest.mark.exhaustive
@needs_superuser
def test_a_planted_graph_is_tested_anew_and_does_not_run(cache_of_its_own):
    torch.manual_seed(0)
    model, other = (Emsr(EmsrConfig(features=16, blocks=1, heads=4)).eval() for _ in range(2))
    engine, _ = open_engine("onnx", model, device="cpu")
    tile = np.random.default_rng(0).random((1, 1, 32, 32), dtype=np.float32)
    right = engine.run(tile)
    (entry,) = cache.entries()
    # another user swaps the graph while he can, and says that it passed
    planted = to_onnx(other, "fp32", None)
    entry.payload_path.write_bytes(planted)
    entry.size, entry.sha256 = len(planted), hashlib.sha256(planted).hexdigest()
    entry.write()
    assert open_engine("onnx", model, device="cpu")[0].run(tile).tobytes() != right.tobytes()
    give_to_stranger(entry.payload_path, entry.path)
    lines = []
    engine, truth = open_engine("onnx", model, device="cpu", say=lines.append)
    assert engine.run(tile).tobytes() == right.tobytes()
    assert f"it belongs to user {STRANGER}" in lines[0]
    assert any(line.startswith("truth   passed on 192x192") for line in lines)
    assert truth["passed"]


AS_STRANGER = """
import os, sys
from emsr_fast.engine import cache
os.environ["EMSR_FAST_CACHE"] = sys.argv[1]
cache.entries()
os.setresgid(54321, 54321, 54321)
os.setresuid(54321, 54321, 54321)
def never():
    raise AssertionError("it was made again")
entry, payload = cache.fetch("engine", {key}, never)
sys.stdout.write(payload.decode())
"""


@needs_superuser
def test_what_the_superuser_has_made_serves_everybody(monkeypatch):
    # pytest's own folders are closed to others
    folder = Path(tempfile.mkdtemp())
    try:
        monkeypatch.setenv("EMSR_FAST_CACHE", str(folder / "cache"))
        cache.fetch("engine", KEY, make)
        folder.chmod(0o755)
        code = AS_STRANGER.replace("{key}", json.dumps(KEY))
        result = subprocess.run(
            [sys.executable, "-c", code, str(folder / "cache")], capture_output=True, text=True, timeout=60
        )
        assert (result.returncode, result.stdout) == (0, "engine"), result.stderr
    finally:
        shutil.rmtree(folder)


def test_what_the_cache_makes_is_closed_to_others_under_any_umask(monkeypatch, tmp_path):
    monkeypatch.setenv("EMSR_FAST_CACHE", str(tmp_path / "cache"))
    before = os.umask(0)
    try:
        entry, _ = cache.fetch("engine", KEY, make)
    finally:
        os.umask(before)
    for path in (tmp_path / "cache", entry.payload_path, entry.path):
        assert ownership.why_not_ours(path.stat()) is None
        assert path.stat().st_mode & 0o022 == 0


def test_a_pipe_in_the_cache_is_not_waited_for(cache_of_its_own):
    entry, _ = cache.fetch("engine", KEY, make)
    entry.payload_path.unlink()
    os.mkfifo(entry.payload_path)
    lines = []
    assert cache.fetch("engine", KEY, make, say=lines.append)[1] == b"engine"
    assert "was not used (it is a pipe" in lines[0]


def test_tritons_kernels_are_not_taken_from_a_folder_that_others_can_write_to(monkeypatch, tmp_path):
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    why_not = _backends._why_no_triton.__wrapped__
    assert "not safe" not in (why_not() or "")
    open_to_all(tmp_path)
    assert f"{tmp_path} is not safe: others can write to it (mode 777)" in why_not()


def test_the_folder_of_tritons_kernels_is_the_one_that_triton_has(monkeypatch, tmp_path):
    triton_cache = pytest.importorskip("triton.runtime.cache")
    for variables in ({}, {"TRITON_HOME": str(tmp_path / "home")}, {"TRITON_CACHE_DIR": str(tmp_path / "here")}):
        for name in ("TRITON_HOME", "TRITON_CACHE_DIR"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert Path(triton_cache.knobs.cache.dir) == _backends.triton_cache()

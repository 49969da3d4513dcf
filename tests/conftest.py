"""Fixtures that every test of an operator shares."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# whether CI passes must depend on the commit alone; elsewhere every run tries other examples
settings.register_profile("emsr_fast", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("emsr_fast")

# background jobs of a shell are started with SIGINT ignored, and so would be the programs that tests send it to
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def data() -> Path:
    """The folder with the golden vectors."""
    return Path(__file__).parent / "data"


@pytest.fixture
def examples() -> Path:
    """The folder with the shipped electron microscopy."""
    return Path(__file__).parents[1] / "examples" / "data"


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return request.param


@pytest.fixture(autouse=True)
def empty_working_folder(monkeypatch, tmp_path_factory):
    """Run every test in an empty folder: an interpreter it starts must find the installed package, not the sources."""
    monkeypatch.chdir(tmp_path_factory.mktemp("work"))


@pytest.fixture(autouse=True)
def poisoned_outputs(monkeypatch):
    """Fill every output an operator allocates with NaN, so a kernel that leaves a pixel out fails."""

    def poison(allocate):
        return lambda *args: allocate(*args).fill_(float("nan"))

    from emsr_fast.ops import OPERATORS
    from emsr_fast.ops.atrous import ATROUS_DETAILS_BACKWARD

    for operator in (*OPERATORS.values(), ATROUS_DETAILS_BACKWARD):
        monkeypatch.setattr(operator, "like", poison(operator.like))


@pytest.fixture
def stack(examples) -> Path:
    """A real FIB-SEM stack: 48 slices of 192 x 192 px, 8 bits."""
    return examples / "flyem_fibsem_10nm_48x192x192.tif"


@pytest.fixture
def small_run(tmp_path, stack) -> dict:
    """Settings of a training run of seconds on real data."""
    return {
        "output": str(tmp_path / "run"),
        "model": {"features": 16, "blocks": 1, "heads": 4},
        "sources": [{"hr": str(stack), "slices": "0:8", "validation_slices": "40:42"}],
        "crop": 16,
        "batch": 2,
        "steps": 6,
        "validate_every": 3,
        "validation_crops": 2,
        "checkpoint_every": 2,
        "optimiser": {"rate": 1e-3, "ema": 0.9, "clip": 1.0},
    }


@pytest.fixture(autouse=True)
def cache_of_its_own(monkeypatch, tmp_path_factory):
    """Give every test an empty cache: the user's is neither read nor filled."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("EMSR_FAST_CACHE", str(folder))
    return folder


class NearestEngine:
    """Repeats pixels; takes ``seconds`` a tile, and like a GPU has memory for ``largest_px`` only."""

    name, scale = "nearest", 3

    def __init__(self, seconds=0.0, largest_px=None):
        self.seconds, self.largest_px = seconds, largest_px
        self.shapes, self.threads = [], set()

    def run(self, batch):
        self.shapes.append(batch.shape[2:])
        self.threads.add(threading.current_thread().name)
        if self.largest_px is not None and batch.size > self.largest_px:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        time.sleep(self.seconds)
        return batch.repeat(3, axis=2).repeat(3, axis=3)


@pytest.fixture
def use_nearest(monkeypatch):
    """Let ``infer`` run a ``NearestEngine`` of the given options under the default model's name, and return it."""

    def use(**options):
        engine = NearestEngine(**options)
        for module in ("prepare", "worker"):
            monkeypatch.setattr(f"emsr_fast.infer.{module}.load_engine", lambda *arguments: (engine, None))
        return engine

    return use


@pytest.fixture
def nearest_engine():
    """The class itself."""
    return NearestEngine

"""bf16 on a CPU: through oneDNN, on processors that have it, behind the truth test."""

import numpy as np
import pytest
import torch

from emsr_fast import Emsr, EmsrConfig
from emsr_fast.convert.accuracy import real_tiles
from emsr_fast.engine import factory, torch_engine
from emsr_fast.engine.torch_engine import TorchEngine
from emsr_fast.errors import BackendError


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Emsr(EmsrConfig(features=16, blocks=1, heads=4)).eval()


def test_a_processor_without_it_is_refused(model, monkeypatch):
    monkeypatch.setattr(torch_engine, "has_bf16", lambda: False)
    with pytest.raises(BackendError, match="bf16 needs a CUDA device or a processor with AVX512_BF16 or AMX"):
        TorchEngine(model, "bf16")


# PyTorch computes in bf16 on any processor, slowly: so this runs everywhere
def test_it_is_near_float32_and_tested_before_use(model, monkeypatch):
    monkeypatch.setattr(torch_engine, "has_bf16", lambda: True)
    said = []
    engine, truth = factory.open_engine("torch", model, precision="bf16", device="cpu", say=said.append)
    assert truth["passed"]
    assert any(line.startswith("truth   passed") for line in said)
    assert engine.name == "torch (cpu, bf16, oneDNN)"
    tiles = real_tiles(30, 45)
    exact, found = TorchEngine(model).run(tiles), engine.run(tiles)
    error = np.abs(found - exact).max()
    assert 0 < error <= truth["largest_allowed"]


def test_wrong_results_are_refused(model, monkeypatch):
    monkeypatch.setattr(torch_engine, "has_bf16", lambda: True)
    right = TorchEngine._run_alone
    monkeypatch.setattr(TorchEngine, "_run_alone", lambda self, batch: right(self, batch) * 1.1)
    with pytest.raises(BackendError, match="failed its truth test"):
        factory.open_engine("torch", model, precision="bf16", device="cpu")


def test_float32_on_a_cpu_has_no_truth_test(model):
    engine, truth = factory.open_engine("torch", model, device="cpu")
    assert truth is None
    assert "kernels" in engine.name

"""Running the network on a GPU: graphs, precision, streams; and of that, what a CPU can show."""

import copy
import dataclasses
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode

from emsr_fast import BackendError, Emsr, EmsrConfig, UsageError, _backends, _native, load_model
from emsr_fast.engine import TorchEngine
from emsr_fast.engine import tile_pipeline as cuda_graph
from emsr_fast.engine.tile_pipeline import DEPTH, ieee_float32
from emsr_fast.engine.torch_engine import PRECISIONS
from emsr_fast.model import cuda_graphs
from emsr_fast.model.cuda_graphs import GraphedNetwork

SMALL = EmsrConfig(features=16, blocks=1, heads=4)
cuda = pytest.mark.cuda


@pytest.fixture
def gpu():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device("cuda")


def half_network(config=SMALL):
    torch.manual_seed(0)
    return Emsr(config).eval().cuda().half().to(memory_format=torch.channels_last)


def test_reduced_precision_is_refused_where_it_cannot_run():
    model = load_model(device="cpu")
    with pytest.raises(BackendError, match="precision fp16 needs a CUDA device, the model is on cpu: use fp32"):
        TorchEngine(model, "fp16")
    with pytest.raises(UsageError, match="`precision` is 'half'; give one of fp32, fp16, bf16"):
        TorchEngine(model, "half")


def test_an_engine_streams_what_it_runs():
    engine = TorchEngine(Emsr(SMALL))
    batches = [np.random.default_rng(n).random((1, 1, 8, 8 + 4 * n), np.float32) for n in range(3)]
    for result, batch in zip(engine.stream(batches), batches, strict=True):
        assert np.array_equal(result, engine.run(batch))


def test_float32_means_float32():
    before = torch.backends.cudnn.allow_tf32
    with ieee_float32():
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.allow_tf32 == before


def test_float32_means_float32_by_the_newer_switches_too():
    if not hasattr(torch.backends.cudnn, "conv"):
        pytest.skip("torch before 2.9 has one kind of switches")
    # for good: once these are used, allow_tf32 cannot be read again
    code = """
import torch
from emsr_fast.engine.tile_pipeline import ieee_float32
switches = torch.backends.cudnn.conv, torch.backends.cuda.matmul
switches[0].fp32_precision, switches[1].fp32_precision = "tf32", "tf32"
with ieee_float32():
    assert [s.fp32_precision for s in switches] == ["ieee", "ieee"]
assert [s.fp32_precision for s in switches] == ["tf32", "tf32"]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_cannot_be_captured_never_begins(monkeypatch):
    monkeypatch.setattr(_backends, "why_not_here", lambda backend: None)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    with FakeTensorMode(), torch.inference_mode():
        y = torch.empty(1, 1, 8, 8, device="cuda")
    deep = Emsr(dataclasses.replace(SMALL, levels=5))
    with torch.inference_mode():
        assert cuda_graphs.why_not(Emsr(SMALL), y) is None
        assert "at most 4 levels, got 5" in cuda_graphs.why_not(deep, y)
        with _backends.use_backend("reference"):
            assert "EMSR_FAST_BACKEND asks for it" in cuda_graphs.why_not(Emsr(SMALL), y)


def test_a_batch_in_flight_keeps_its_buffers():
    shape = cuda_graph._Shape(lambda y: y, (1, 1, 2, 2), 3, torch.device("cpu"))
    taken = [shape.take(False, None) for _ in range(DEPTH + 1)]
    assert len({id(slot) for slot, _ in taken}) == DEPTH + 1
    slot, free = taken[1]
    free.append(slot)
    # only for what has the same bytes
    assert shape.take(True, None)[0] is not slot
    assert shape.take(False, (slice(0, 3), slice(0, 3)))[0] is not slot
    assert shape.take(False, (slice(0, 6), slice(0, 6)))[0] is slot


def test_a_cpu_needs_no_graph():
    assert cuda_graphs.why_not(Emsr(SMALL), torch.rand(1, 1, 8, 8)) == "y is on cpu, graphs need a CUDA device"


def test_a_graph_is_known_by_the_place_of_its_weights():
    model = Emsr(SMALL)
    before = _native.fingerprint(model.parameters())
    with torch.no_grad():
        model.conv_in.weight.add_(1)
    # read where they are at each replay
    assert _native.fingerprint(model.parameters()) == before
    model.conv_in.weight = torch.nn.Parameter(model.conv_in.weight.detach().clone())
    assert _native.fingerprint(model.parameters()) != before
    assert _native.fingerprint(copy.deepcopy(model).parameters()) != _native.fingerprint(model.parameters())
    assert _native.fingerprint(copy.deepcopy(model).half().parameters()) != before


@cuda
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_a_replay_gives_what_single_launches_give(gpu, dtype):
    model = half_network().to(dtype)
    graphed = GraphedNetwork(model)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("error")
        for size in ((2, 40, 36), (1, 13, 130), (2, 40, 36)):
            y = torch.rand(size[0], 1, *size[1:], device=gpu, dtype=dtype)
            assert cuda_graphs.why_not(model, y) is None
            assert torch.equal(graphed(y), model(y))


@cuda
def test_a_changed_weight_is_seen_by_a_replay(gpu):
    model, y = half_network(), torch.rand(1, 1, 16, 16, device=gpu, dtype=torch.float16)
    graphed = GraphedNetwork(model)
    with torch.inference_mode():
        before = graphed(y)
        model.conv_out.weight.mul_(2)
        assert torch.equal(graphed(y), model(y))
        assert not torch.equal(graphed(y), before)
        model.conv_in.weight.data = torch.randn_like(model.conv_in.weight)
        assert torch.equal(graphed(y), model(y))


@cuda
def test_a_replay_neither_allocates_nor_waits(gpu):
    model, y = half_network(), torch.rand(1, 1, 64, 64, device=gpu, dtype=torch.float16)
    with torch.inference_mode():
        graph = cuda_graphs.Graph(model, y)
        before = torch.cuda.memory_stats(gpu)["allocation.all.allocated"]
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(5):
                graph.replay(y)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert torch.cuda.memory_stats(gpu)["allocation.all.allocated"] == before


@cuda
def test_two_streams_and_threads_do_not_mix(gpu):
    model = half_network()
    graphed = GraphedNetwork(model)
    images = [torch.rand(1, 1, 48, 48, device=gpu, dtype=torch.float16) for _ in range(4)]
    with torch.inference_mode():
        expected = [model(y) for y in images]
    torch.cuda.synchronize()
    wrong = []

    def work(n):
        with torch.inference_mode(), torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(20):
                if not torch.equal(graphed(images[n]), expected[n]):
                    wrong.append(n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@cuda
def test_two_devices_do_not_mix(gpu):
    if torch.cuda.device_count() < 2:
        pytest.skip("one CUDA device only")
    y = torch.rand(1, 1, 24, 24, dtype=torch.float16)
    results = []
    with torch.inference_mode():
        for n in (0, 1, 0, 1):
            graphed = GraphedNetwork(half_network().to(f"cuda:{n}"))
            results.append(graphed(y.to(f"cuda:{n}")).cpu())
    assert all(torch.equal(result, results[0]) for result in results)


@cuda
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_an_engine_overlaps_batches_of_several_shapes(gpu, precision):
    engine = TorchEngine(load_model(device="cuda"), precision)
    sizes = [(1, 40, 40), (1, 40, 24), (2, 40, 40), (1, 40, 40), (1, 40, 24)]
    batches = [np.random.default_rng(n).random((b, 1, h, w), np.float32) for n, (b, h, w) in enumerate(sizes)]
    assert len(batches) > DEPTH
    exact, plain = load_model(device="cpu").double(), load_model(device="cpu").to(PRECISIONS[precision])
    for result, batch in zip(engine.stream(batches), batches, strict=True):
        y = torch.from_numpy(batch)
        with torch.no_grad(), _backends.use_backend("reference"):
            true, rounded = exact(y.double()).numpy(), plain(y.to(PRECISIONS[precision])).double().numpy()
        # no worse than twice the rounding error of plain PyTorch in this precision
        assert np.abs(result - true).max() <= 2 * np.abs(rounded - true).max() + 1e-7


@cuda
def test_streams_of_one_engine_may_be_read_in_turns(gpu):
    engine = TorchEngine(load_model(device="cuda"), "fp16")
    batches = [np.random.default_rng(n).random((1, 1, 40, 40), np.float32) for n in range(6)]
    expected = [engine.run(batch) for batch in batches]
    for n, (a, b) in enumerate(zip(engine.stream(batches), engine.stream(batches[::-1]), strict=True)):
        assert np.array_equal(a, expected[n])
        assert np.array_equal(b, expected[-1 - n])
        assert np.array_equal(engine.run(batches[n]), expected[n])


@cuda
def test_networks_are_captured_by_several_threads_at_a_time(gpu):
    networks = [GraphedNetwork(half_network()) for _ in range(4)]
    y = torch.rand(1, 1, 24, 24, device=gpu, dtype=torch.float16)
    failed = []

    def work(graphed):
        with torch.inference_mode(), torch.cuda.stream(torch.cuda.Stream()):
            if not torch.equal(graphed(y), graphed.network(y)):
                failed.append(graphed)

    threads = [threading.Thread(target=work, args=(graphed,)) for graphed in networks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert all(None not in graphed._graphs.values() for graphed in networks)


@cuda
def test_the_network_compiles_with_our_operators(gpu):
    model, y = half_network(), torch.rand(1, 1, 32, 36, device=gpu, dtype=torch.float16)
    with torch.inference_mode():
        for mode in ("default", "reduce-overhead"):
            compiled = torch.compile(model, fullgraph=True, mode=mode)
            for _ in range(3):
                result = compiled(y).clone()
            torch.testing.assert_close(result, model(y), rtol=1e-2, atol=1e-2)

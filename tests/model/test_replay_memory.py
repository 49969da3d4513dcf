"""The memory of replays: nobody else's, never freed under them, no more than one pass needs."""

import gc
import importlib
import itertools
import multiprocessing
import threading
import weakref

import pytest
import torch

from emsr_fast import Emsr, _native, _recording
from emsr_fast.infer import prepare
from emsr_fast.model import replay
from replayed import SMALL, computed, found

window_attention = importlib.import_module("emsr_fast.ops.window_attention")


@pytest.fixture
def model():
    with torch.inference_mode(False):
        torch.manual_seed(0)
        return Emsr(SMALL).eval()


@pytest.fixture(autouse=True)
def inference():
    with torch.inference_mode():
        yield


def test_a_result_is_the_callers_own(model):
    y = torch.rand(2, 1, 1, 24, 24)
    first, second = model(y[0]), model(y[0])
    kept = first.clone()
    model(y[1])
    second.zero_()
    assert torch.equal(first, kept)
    assert torch.equal(model(y[0]), kept)


def everything_free_filled(value, dtype=torch.float32):
    """Tensors of many sizes, which take whatever memory was free, each filled with ``value``."""
    sizes = [4 << n for n in range(17)] + [24 * 20 * n for n in (1, 3, 6, 9, 16)]
    return [torch.full((size,), value, dtype=dtype) for size in sizes for _ in range(20)]


def test_a_replay_writes_to_no_memory_of_others(model):
    y = torch.rand(1, 1, 24, 20)
    model(y)
    gc.collect()
    others = everything_free_filled(7.0)
    model(y)
    assert all((other == 7).all() for other in others)


def test_what_a_replay_reads_is_kept_for_it(model):
    y, weight = torch.rand(1, 1, 24, 20), model.blocks[0].conv_out.weight
    expected, kept = model(y), weight.clone()
    recording = found(model)
    # the caches forget what the recording reads: maps of tokens, a packed weight
    window_attention._grid_maps.cache_clear()
    weight.mul_(2)
    computed(model, y)
    weight.copy_(kept)
    junk = everything_free_filled(1e9), everything_free_filled(0, torch.int32)
    assert torch.equal(model(y), expected)
    assert found(model) == recording
    del junk


def test_an_interrupted_pass_takes_no_memory_from_a_recording(model, monkeypatch):
    y = torch.rand(1, 1, 24, 20)
    expected = model(y)

    def interrupted(*_):
        raise KeyboardInterrupt

    finalize, calls = weakref.finalize, itertools.count()
    for step in range(1, 12):
        first = next(calls) + step
        with monkeypatch.context() as patch:
            patch.setattr(
                weakref, "finalize", lambda *args, n=first: (finalize if next(calls) < n else interrupted)(*args)
            )
            with pytest.raises(KeyboardInterrupt):
                model(torch.rand(1, 1, 8, 8))
        gc.collect()
        others = everything_free_filled(7.0)
        assert torch.equal(model(y), expected)
        assert all((other == 7).all() for other in others)
    # what was interrupted keeps nothing
    assert len(found(model)) == 1
    assert len(replay._recordings[model]._memory) <= 12


def test_changed_weights_leave_no_memory_behind(model):
    kept = []
    for side in range(8, 14):
        model(torch.rand(1, 1, side, side))
        kept.append(len(found(model)))
        model.conv_in.weight.mul_(1.1)
    model(torch.rand(1, 1, 9, 8))
    # recordings of other weights, and their packed forms, go
    assert kept == 6 * [1]
    assert len(found(model)) == 1


def test_a_thread_does_not_wait_for_another(model):
    y = torch.rand(1, 1, 16, 16)
    expected = model(y)
    done = []

    def work():
        with torch.inference_mode():
            done.append(model(y))

    with replay._recordings[model]._in_use:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(60)
        assert len(done) == 1
    assert torch.equal(done[0], expected)


def test_threads_do_not_mix(model):
    images = [torch.rand(1, 1, 24 + 4 * n, 32) for n in range(4)]
    expected = [computed(model, y) for y in images]
    wrong = []

    def work(first):
        with torch.inference_mode():
            for step in range(40):
                n = (first + step) % 4
                if not torch.equal(model(images[n]), expected[n]):
                    wrong.append(n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    # nobody's pass is under way
    assert replay._recordings[model]._in_use.acquire(blocking=False)


def test_a_pass_that_fails_leaves_nothing_behind(model, monkeypatch):
    y = torch.rand(1, 1, 16, 16)
    expected = model(y)

    def fail(*_):
        raise MemoryError("on purpose")

    with monkeypatch.context() as patch:
        patch.setattr(_native, "upsample_to_image", fail)
        for _ in range(3):
            with pytest.raises(MemoryError):
                model(torch.rand(1, 1, 12, 12))
    assert torch.equal(model(y), expected)
    assert len(found(model)) == 1
    assert _recording.listener() is None


def test_memory_is_that_of_the_largest_shape_and_goes_with_the_network():
    model, memories = Emsr().eval(), []
    for side in (16, 40, 32, 24):
        model(torch.rand(1, 1, side, side))
        memories.append(replay._recordings[model]._memory)
    assert memories[0] is not memories[1]
    assert memories[1] is memories[2] is memories[3]
    assert [key[0][2] for key in replay._recordings[model]._of_shape] == [40, 32, 24]
    # as many features as are alive at a time: what `infer` reckons with
    small, large = memories[1]._pools
    assert len(large) + len(small) * small.floats / large.floats <= prepare._LIVE_MAPS
    for side in range(1, 20):
        model(torch.rand(1, 1, side, 8))
    assert len(found(model)) == replay.MOST_SHAPES
    memory = weakref.ref(memories.pop())
    memories.clear()
    del model, small, large
    gc.collect()
    assert memory() is None


def _child(model, y, queue):
    with torch.inference_mode():
        results = model(y).numpy(), model(y).numpy()
    queue.put((results, len(found(model)), replay._recordings[model]._in_use.locked()))


def test_a_child_of_fork_starts_anew(model):
    y = torch.rand(1, 1, 16, 16)
    expected = model(y).numpy()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    # held by a thread that the child does not have
    with replay._recordings[model]._in_use:
        child = context.Process(target=_child, args=(model, y, queue))
        child.start()
        results, recordings, locked = queue.get(timeout=60)
    child.join()
    assert all((result == expected).all() for result in results)
    assert recordings == 1
    assert not locked

"""Memory of large results: handed on when free, and only then."""

import resource
import subprocess
import sys
import threading

import pytest
import torch

from emsr_fast import conv3x3
from emsr_fast.ops import _buffers
from emsr_fast.ops._buffers import empty_features

SHAPE = (1, 64, 352, 352)


def test_memory_is_handed_on_only_when_nothing_uses_it():
    first, second = empty_features(*SHAPE), empty_features(*SHAPE)
    place, other = first.data_ptr(), second.data_ptr()
    assert place != other
    assert place % 64 == other % 64 == 0
    assert first.is_contiguous(memory_format=torch.channels_last)
    part = first[0, 3]
    del first
    # a part of the first is still in use
    assert empty_features(*SHAPE).data_ptr() not in (place, other)
    del part
    again = empty_features(*SHAPE)
    assert again.data_ptr() == place
    assert again.shape == SHAPE


def test_at_most_eight_buffers_of_one_size_wait():
    several = [empty_features(*SHAPE) for _ in range(10)]
    del several
    assert [len(waiting) for waiting in _buffers._idle.values()] == [8]
    kept = empty_features(1, 64, 360, 352)
    assert [len(waiting) for waiting in _buffers._idle.values()] == [0]
    assert kept is not None
    assert empty_features(1, 32, 32, 32) is None


def test_python_exits_in_silence_while_features_are_in_use():
    script = "import sys; from emsr_fast.ops._buffers import empty_features; sys.kept = empty_features(1, 64, 99, 99)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""


def test_a_second_call_meets_no_new_pages():
    x = torch.rand(1, 64, 360, 360).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(64, 64, 3, 3)
    with torch.inference_mode():
        expected = conv3x3(x, weight)
        kept = expected.clone()
        del expected
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        result = conv3x3(x, weight)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert torch.equal(result, kept)
    # 8100 pages of 4 KB hold the result
    assert faults < 800


@pytest.mark.parametrize("threads", [4])
def test_threads_never_share_a_buffer(threads):
    wrong = []

    def work(number):
        for step in range(20):
            mine = empty_features(*SHAPE).fill_(number + step)
            if not (mine[0, :, ::50, ::50] == number + step).all():
                wrong.append((number, step))
            del mine

    workers = [threading.Thread(target=work, args=(100 * n,)) for n in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong

"""The CPU kernel of conv3x3 keeps weights in its own order: a change is seen, and nothing is kept for long."""

import copy
import gc
import os
import pickle
import threading
from pathlib import Path

import pytest
import torch

from emsr_fast import conv3x3
from emsr_fast.ops.conv3x3 import PACKED


@torch.no_grad()
def by_optimizer(layer):
    for p in layer.parameters():
        p.grad = torch.ones_like(p)
    torch.optim.SGD(layer.parameters(), lr=0.1).step()
    return layer


def by_state_dict(layer):
    layer.load_state_dict({"weight": torch.randn_like(layer.weight)})
    return layer


def by_assignment(layer):
    layer.load_state_dict({"weight": torch.randn_like(layer.weight)}, assign=True)
    return layer


def by_data(layer):
    layer.weight.data.mul_(0.5)
    return layer


def by_new_data(layer):
    layer.weight.data = torch.randn_like(layer.weight.data)
    return layer


def by_numpy(layer):
    layer.weight.detach().numpy()[0, 0, 1, 1] += 1
    return layer


def by_going_to_double_and_back(layer):
    layer.double()
    layer.weight.data += 1
    return layer.float()


def by_deepcopy(layer):
    other = copy.deepcopy(layer)
    other.weight.data += 1
    return other


def by_pickle(layer):
    other = pickle.loads(pickle.dumps(layer))
    other.weight.data -= 1
    return other


def by_inference_tensor(layer):
    with torch.inference_mode():
        layer.weight.copy_(torch.randn_like(layer.weight))
    return layer


CHANGES = [
    *(by_optimizer, by_state_dict, by_assignment, by_data, by_new_data, by_numpy, by_going_to_double_and_back),
    *(by_deepcopy, by_pickle, by_inference_tensor),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_a_changed_weight_is_seen(change):
    layer = torch.nn.Conv2d(16, 16, 3, padding=1, bias=False)
    x = torch.randn(1, 16, 8, 8)
    with torch.no_grad():
        before = conv3x3(x, layer.weight, backend="cpp")
        layer = change(layer)
        after = conv3x3(x, layer.weight, backend="cpp")
        expected = layer(x)
        assert (after - expected).abs().max() <= 4e-5 * expected.abs().max()
    assert not torch.allclose(after, before, atol=1e-3)


def test_packed_weights_go_with_their_tensor():
    gc.collect()
    before = len(PACKED._entries)
    weight = torch.randn(16, 16, 3, 3)
    conv3x3(torch.randn(1, 16, 4, 4), weight, backend="cpp")
    assert len(PACKED._entries) == before + 1
    assert PACKED.get(weight) is PACKED.get(weight)
    del weight
    gc.collect()
    assert len(PACKED._entries) == before


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_a_thousand_calls_leave_no_memory_behind():
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    x, weight = torch.randn(2, 32, 24, 24), torch.randn(32, 32, 3, 3)

    def call(times):
        for _ in range(times):
            conv3x3(x, weight, backend="cpp")
            conv3x3(x, weight.clone(), backend="cpp")  # packed anew each time

    call(50)
    before = resident()
    call(1000)
    # a packed weight of 147 KB kept at every call would be 147 MB
    assert resident() - before < 10e6


def test_threads_share_a_weight():
    x, weight = torch.randn(2, 32, 40, 40), torch.randn(32, 32, 3, 3)
    expected, wrong = conv3x3(x, weight.clone(), backend="cpp"), []

    def work():
        for _ in range(20):
            if not torch.equal(conv3x3(x, weight, backend="cpp"), expected):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong

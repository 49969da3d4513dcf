"""The network on a CPU as a list of kernel calls: the same bits, and never out of date."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils._python_dispatch import TorchDispatchMode

from emsr_fast import Emsr, EmsrConfig, _dispatch, load_model
from emsr_fast.model import replay
from replayed import SMALL, computed, found


@pytest.fixture
def model():
    with torch.inference_mode(False):
        torch.manual_seed(0)
        return Emsr(SMALL).eval()


@pytest.fixture(autouse=True)
def inference():
    with torch.inference_mode():
        yield


@pytest.mark.parametrize(
    "config",
    [SMALL, EmsrConfig(features=32, blocks=2, heads=8, levels=2), EmsrConfig(features=16, blocks=1, heads=4, scale=2)],
    ids=str,
)
def test_a_replay_gives_the_same_bits(config):
    torch.manual_seed(0)
    model = Emsr(config).eval()
    for shape in ((1, 1, 33, 47), (2, 1, 16, 16), (1, 1, 1, 1), (1, 1, 70, 70), (1, 1, 33, 47)):
        for _ in range(3):
            y = torch.randn(shape)
            assert torch.equal(model(y), computed(model, y))
    y = torch.randn(47, 33).T
    assert torch.equal(model(y), computed(model, y))
    # 70x70 took the others' place, then 33x47 was recorded again
    assert [type(recording) for recording in found(model)] == 2 * [replay.Recording]


def test_the_shipped_model_is_replayed(examples, monkeypatch):
    model = load_model(device="cpu")
    y = torch.rand(2, 1, 1, 64, 48)
    assert torch.equal(model(y[0]), computed(model, y[0]))
    expected = computed(model, y[1])
    # the network's Python has no part in a replay
    monkeypatch.setattr(Emsr, "compute", None)
    assert torch.equal(model(y[1]), expected)


CHANGES = {
    "a packed weight": lambda m: m.blocks[0].body[0].conv1.weight.mul_(2),
    "a packed weight's data": lambda m: m.conv_in.weight.data.mul_(2),
    "both weights of the upsampler": lambda m: [m.conv_out.weight.mul_(2), m.upsample[0].conv.weight.mul_(0.3)],
    "one weight of the upsampler": lambda m: m.conv_out.weight.mul_(2),
    "a weight read where it is": lambda m: m.blocks[0].transformer.qkv.weight.mul_(2),
    "a bias": lambda m: m.blocks[0].attention[0].k2.bias.add_(1),
    "a weight that moves": lambda m: setattr(m.blocks[0].transformer.fc1.weight, "data", torch.randn(32, 16)),
    "a new parameter": lambda m: setattr(m.conv_in, "weight", nn.Parameter(torch.randn(16, 1, 3, 3))),
    "a new module": lambda m: setattr(m.blocks[0], "coarse", nn.ModuleList([m.blocks[0].fine[0], nn.Identity()])),
    "another state": lambda m: m.load_state_dict(Emsr(SMALL).state_dict()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_network_is_seen(model, change):
    y = torch.rand(1, 1, 20, 24)
    before = model(y)
    for _ in range(2):
        CHANGES[change](model)
        after = model(y)
        assert torch.equal(after, computed(model, y))
        assert torch.equal(model(y), after)
        assert not torch.equal(after, before)


class Doubled(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x, **more):
        return 2 * self.inner(x, **more)


def own_forward(module):
    inner = module.forward
    module.forward = lambda *args, **kwargs: inner(*args, **kwargs).mul_(2)


def buffered(module):
    weight = module.weight.detach().clone()
    del module.weight
    module.register_buffer("weight", weight)


def renamed(parameters):
    weight, bias = parameters.pop("weight"), parameters.pop("bias")
    parameters["bias"], parameters["weight"] = weight, bias


UNCHANGED = ("a weight that is computed", "a weight that is a buffer", "a compiled module")
REBUILT = {
    "a module around another": lambda m: setattr(m.blocks[0], "transformer", Doubled(m.blocks[0].transformer)),
    "a module more": lambda m: m.blocks[0].body.append(nn.ReLU()),
    "in place": lambda m: m.blocks[0].body.append(nn.ReLU(inplace=True)),
    "a block twice": lambda m: m.blocks.append(m.blocks[0]),
    "a block fewer": lambda m: m.blocks.__delitem__(1),
    "a forward of its own": lambda m: own_forward(m.blocks[0].conv_out),
    "heads": lambda m: setattr(m.blocks[0].transformer, "heads", 8),
    "fit": lambda m: setattr(m.blocks[0].transformer, "fit", "resize"),
    "a weight that is computed": lambda m: parametrizations.weight_norm(m.blocks[0].conv_out).weight,
    "a class of its own": lambda m: setattr(m, "__class__", Clamped),
    "a weight that is a buffer": lambda m: buffered(m.blocks[0].conv_out),
    "a weight that hides another": lambda m: vars(m.blocks[0].conv_out).update(weight=torch.randn(16, 16, 3, 3)),
    "a module that hides another": lambda m: vars(m.blocks[0]).update(conv_out=Doubled(m.blocks[0].conv_out)),
    "parameters that change names": lambda m: renamed(m.blocks[0].transformer.norm1._parameters),
    "a compiled module": lambda m: m.blocks[0].compile(backend="eager"),
    "a hook": lambda m: m.blocks[0].conv_out.register_forward_hook(lambda module, inputs, out: 2 * out),
    "a hook before": lambda m: m.blocks[0].conv_out.register_forward_pre_hook(lambda module, inputs: (2 * inputs[0],)),
}


class Clamped(Emsr):
    def compute(self, y):
        return super().compute(y).clamp_(0.1, 0.2)


@pytest.mark.parametrize("change", REBUILT)
def test_a_network_rebuilt_is_computed_as_it_is_now(change):
    with torch.inference_mode(False):
        torch.manual_seed(0)
        model = Emsr(EmsrConfig(features=16, blocks=2, heads=4)).eval()
    y = torch.randn(1, 1, 21, 23)
    before = model(y)
    with torch.inference_mode(False):
        REBUILT[change](model)
    for _ in range(2):
        assert torch.equal(model(y), computed(model, y))
        assert not torch.equal(model(y), before) or change in UNCHANGED
        for weight in (*model.parameters(), *model.buffers()):
            weight.mul_(1.01)
    y = torch.randn(1, 1, 21, 23)
    assert torch.equal(model(y), computed(model, y))


def test_shared_blocks_are_told_apart():
    torch.manual_seed(0)
    model = Emsr(EmsrConfig(features=16, blocks=3, heads=4)).eval()
    first, second, _ = model.blocks
    y = torch.rand(1, 1, 16, 16)
    results = []
    for blocks in ([first, first, second], [first, second, second], [second, first, first]):
        model.blocks = nn.ModuleList(blocks)
        results.append(model(y))
        assert torch.equal(results[-1], computed(model, y))
    assert not torch.equal(results[0], results[1])


def test_what_torch_computes_is_never_remembered():
    y = torch.rand(1, 1, 8, 8)
    recording = replay.Recording(replay.Memory(64, SMALL), 64, [])
    assert torch.equal(recording.of(lambda y: 2 * y, y), 2 * y)
    assert recording.why_not == "not only our kernels computed"


def test_a_parameter_in_anothers_place_is_seen(model):
    y, conv = torch.rand(1, 1, 16, 16), model.blocks[0].conv_out
    before, first = model(y), conv.weight
    # the network's is a new one at the old address, while the old one is elsewhere and as it was
    conv.weight = nn.Parameter(first.data)
    first.data = first.data.clone()
    conv.weight.mul_(2)
    assert torch.equal(model(y), computed(model, y))
    assert not torch.equal(model(y), before)


class Tagged(torch.Tensor):
    pass


def test_weights_of_a_class_of_their_own_are_computed_with(model):
    y = torch.rand(1, 1, 16, 16)
    expected = model(y)
    with torch.inference_mode(False):
        model.conv_in.weight = nn.Parameter(model.conv_in.weight.detach().as_subclass(Tagged))
    assert replay.why_not(model, y) == "a weight is no plain tensor"
    assert torch.equal(model(y), expected)


def test_a_module_by_another_name_is_missed(model):
    y, block = torch.rand(1, 1, 16, 16), model.blocks[0]
    model(y)
    block._modules["renamed"] = block._modules.pop("conv_out")
    with pytest.raises(AttributeError, match="conv_out"):
        model(y)


def test_a_network_cut_smaller_in_place_is_seen(model):
    y, block = torch.rand(1, 1, 16, 16), model.blocks[0].transformer
    model(y)
    # the same memory, read with the same strides
    block.fc1.weight.data, block.fc1.bias.data = block.fc1.weight.data[:16], block.fc1.bias.data[:16]
    block.fc2.weight.data = block.fc2.weight.data[:, :16]
    for _ in range(2):
        assert torch.equal(model(y), computed(model, y))


def test_hooks_of_all_modules_are_called(model):
    y, seen = torch.rand(1, 1, 16, 16), []
    model(y)
    handle = nn.modules.module.register_module_forward_hook(lambda *_: seen.append(1))
    try:
        model(y)
        assert len(seen) > 20
    finally:
        handle.remove()


def test_scales_and_backends_without_kernels_are_computed():
    torch.manual_seed(0)
    model = Emsr(EmsrConfig(features=16, blocks=1, heads=4, scale=4)).eval()
    y = torch.rand(2, 1, 1, 12, 16)
    for one in y:
        assert torch.equal(model(one), computed(model, one))
    with _dispatch.use_backend("reference"):
        for one in y:
            assert torch.equal(model(one), computed(model, one))
    assert found(model) == 2 * ["not only our kernels computed"]
    # nothing is kept for what is not replayed
    assert replay._recordings[model]._memory is None


def test_a_weight_that_a_kernel_reads_as_a_copy_is_never_remembered(model):
    qkv = model.blocks[0].transformer.qkv
    qkv.weight.data = qkv.weight.data.T.contiguous().T
    y = torch.rand(1, 1, 16, 16)
    for _ in range(2):
        assert torch.equal(model(y), computed(model, y))
        qkv.weight.mul_(2)
    assert found(model) == ["a kernel read a copy of a weight"]


def test_hooks_are_called(model):
    y, seen = torch.rand(1, 1, 16, 16), []
    model(y)
    handle = model.blocks[0].conv_out.register_forward_hook(lambda *_: seen.append(1))
    model(y)
    model(y)
    assert len(seen) == 2
    handle.remove()
    model(y)
    assert len(seen) == 2


def test_who_watches_every_operator_sees_them(model):
    class Watching(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    y = torch.rand(3, 1, 1, 8, 8)
    expected = torch.stack([model(one) for one in y])
    seen = []
    with Watching():
        model(y[0])
    assert sum("emsr_fast.conv3x3" in name for name in seen) > 10
    torch.testing.assert_close(torch.vmap(model)(y), expected)


def test_derivatives_are_those_of_the_network(model):
    y, step = torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8)
    model(y)
    with torch.inference_mode(False):
        y, step = y.clone(), step.clone()
        _, expected = torch.func.jvp(model, (y,), (step,))
        assert expected.abs().max() > 0
    _, tangent = torch.func.jvp(model, (y,), (step,))
    torch.testing.assert_close(tangent, expected)


def test_why_a_call_is_not_replayed(model, monkeypatch):
    y = torch.rand(1, 1, 8, 8)
    assert replay.why_not(model, y) is None
    for other in (y.double(), y[:0], y.to("meta")):
        assert replay.why_not(model, other) == "y is not a float32 image in memory"
    assert "more than 64 MiB" in replay.why_not(model, torch.empty(1, 1, 1025, 1024))
    assert replay.why_not(model, torch.empty(1, 1, 1024, 1024)) is None
    assert replay.why_not(Clamped(SMALL), y).startswith("a module has hooks")
    with torch.device("cpu"):
        assert "wants every operator" in replay.why_not(model, y)
    with torch.inference_mode(False):
        assert "torch.inference_mode()" in replay.why_not(model, y)
    with torch.autocast("cpu"):
        assert "autocast" in replay.why_not(model, y)
    monkeypatch.setenv("EMSR_FAST_CPU_REPLAY", "0")
    assert replay.why_not(model, y) == "EMSR_FAST_CPU_REPLAY is 0"


def test_threads_of_torch_are_counted(model):
    y, before = torch.rand(1, 1, 16, 16), torch.get_num_threads()
    try:
        for threads in (1, 2, 1):
            torch.set_num_threads(threads)
            assert torch.equal(model(y), computed(model, y))
    finally:
        torch.set_num_threads(before)
    assert len(found(model)) == 2

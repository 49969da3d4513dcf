"""What every operator declares, and what follows from it: choice, checks, preferences of threads and tasks."""

import asyncio
import re
import threading

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from emsr_fast import BackendError, _backends, atrous_details, conv3x3, doctor, ops
from emsr_fast.ops import OPERATORS, _operator

X = torch.rand(1, 1, 8, 8)
DETAILS = OPERATORS["atrous_details"]


def test_every_public_operator_is_declared_and_exported():
    assert set(ops.__all__) == {*OPERATORS, "OPERATORS"}
    for name, operator in OPERATORS.items():
        assert operator.name == name
        assert operator.backends[-1] == "reference"
        assert set(operator.on_request) <= set(operator.kernels)
        assert hasattr(torch.ops.emsr_fast, name)
        schema = getattr(torch.ops.emsr_fast, name).default._schema
        assert schema.arguments[-1].name == "backend"
        assert callable(getattr(ops, name))


def test_the_doctor_lists_every_operator():
    text = doctor.report()
    assert re.search(r"^  conv3x3 +cpp, reference$", text, re.MULTILINE)
    for name in OPERATORS:
        assert name in text


def test_why_not_is_the_whole_reason():
    assert DETAILS.why_not("cpp", X, 3) is None
    assert "at most 4 levels, got 5" in DETAILS.why_not("cpp", X, 5)
    assert "needs a CUDA device" in DETAILS.why_not("triton", X, 3)
    assert OPERATORS["edge_gate"].why_not("cuda", X) == "edge_gate has no cuda kernel"
    assert DETAILS.why_not("reference", X, 5) is None


@pytest.fixture
def counted(monkeypatch):
    """How often ``conv3x3`` is checked, and a backend chosen for it."""
    operator, calls = OPERATORS["conv3x3"], {"check": 0, "limits": 0}
    monkeypatch.setattr(operator, "_known", {})
    for what in calls:

        def counting(*arguments, what=what, wrapped=getattr(operator, what)):
            calls[what] += 1
            return wrapped(*arguments)

        monkeypatch.setattr(operator, what, counting)
    return calls


def test_a_call_is_checked_once_and_chosen_for_once(counted):
    x, weight = torch.randn(1, 16, 6, 6), torch.randn(16, 16, 3, 3)
    conv3x3(x, weight)
    assert counted == {"check": 1, "limits": 1}
    # what was found holds for equal shapes
    conv3x3(x + 1, weight)
    assert counted == {"check": 1, "limits": 1}
    conv3x3(torch.randn(1, 16, 6, 7), weight)
    assert counted == {"check": 2, "limits": 2}
    torch.ops.emsr_fast.conv3x3(torch.randn(1, 16, 9, 9), weight, "none", None, None, "auto")
    assert counted == {"check": 3, "limits": 3}


def test_what_was_found_is_not_taken_for_another_call():
    x, weight = torch.randn(1, 16, 6, 6), torch.randn(16, 16, 3, 3)
    plain = conv3x3(x, weight)
    with _backends.use_backend("cuda"), pytest.raises(BackendError, match="needs a CUDA device"):
        conv3x3(x, weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert conv3x3(x, weight).dtype == torch.bfloat16
    assert conv3x3(x.double(), weight.double()).dtype == torch.float64
    for call in (conv3x3, lambda x, w: torch.ops.emsr_fast.conv3x3(x, w, "none", None, None, "auto")):
        with pytest.raises(ValueError, match=r"weight must be \(C_out, 16, 3, 3\)"):
            call(x, weight[:, :8])
    with pytest.raises(ValueError, match="weight is on meta"):
        conv3x3(x, weight.to("meta"))
    with pytest.raises(ValueError, match="activation must be one of"):
        conv3x3(x, weight, activation="gelu")
    assert torch.equal(conv3x3(x, weight), plain)


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(_operator, "MOST_KNOWN", 5)
    for side in range(1, 20):
        atrous_details(torch.rand(1, 1, side, 3))
        assert len(DETAILS._known) <= 5


def test_a_mode_sees_the_operator():
    class Seen(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.names = []

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.names.append(str(function))
            return function(*args, **(kwargs or {}))

    with Seen() as seen:
        atrous_details(X)
    assert seen.names == ["emsr_fast.atrous_details.default"]


@pytest.fixture
def dispatched(monkeypatch):
    """How often ``conv3x3`` passes through PyTorch's dispatcher."""
    operator, calls = OPERATORS["conv3x3"], []
    registered = operator._registered

    def counting(*arguments):
        calls.append(arguments)
        return registered(*arguments)

    monkeypatch.setattr(operator, "_registered", counting)
    return calls


WEIGHT = torch.randn(16, 16, 3, 3)
FEATURES = torch.randn(1, 16, 6, 6)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_a_plain_call_goes_to_the_kernel_directly(dispatched, mode):
    weight = torch.nn.Parameter(WEIGHT, requires_grad=mode is not torch.enable_grad)
    with mode():
        found = conv3x3(FEATURES, weight)
        expected = torch.ops.emsr_fast.conv3x3(FEATURES, weight, "none", None, None, "auto")
    assert dispatched == []
    assert torch.equal(found, expected)
    assert found.is_inference() is (mode is torch.inference_mode)


class _Subclass(torch.Tensor):
    pass


class _FunctionMode(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


def _in_function_mode(x):
    with _FunctionMode():
        return conv3x3(x, WEIGHT)


def _profiled(x):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        found = conv3x3(x, WEIGHT)
    assert "emsr_fast::conv3x3" in {event.key for event in profile.key_averages()}
    return found


def _traced(x):
    traced = torch.jit.trace(lambda image: conv3x3(image, WEIGHT), (x,), check_trace=False)
    assert "emsr_fast::conv3x3" in str(traced.graph)
    return traced(x)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:There is a performance")
@pytest.mark.filterwarnings("ignore:.torch.jit.trace")
@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda x: torch.func.vmap(lambda image: conv3x3(image, WEIGHT))(x[None])[0], id="vmap"),
        pytest.param(lambda x: conv3x3(torch._neg_view(-x), WEIGHT), id="negated view"),
        pytest.param(lambda x: conv3x3(x.as_subclass(_Subclass), WEIGHT).as_subclass(torch.Tensor), id="subclass"),
        pytest.param(_in_function_mode, id="function mode"),
        pytest.param(_profiled, id="profiler"),
        pytest.param(_traced, id="trace"),
    ],
)
def test_what_asks_for_the_dispatcher_gets_it(dispatched, call):
    expected = conv3x3(FEATURES, WEIGHT)
    assert dispatched == []
    assert torch.equal(call(FEATURES), expected)
    assert dispatched


def test_zeros_without_memory_are_zeros():
    zeros = torch._efficientzerotensor((1, 16, 6, 6))
    assert torch.equal(conv3x3(zeros, WEIGHT), torch.zeros(1, 16, 6, 6))


def test_a_preference_is_of_its_thread():
    inside, done = threading.Event(), threading.Event()
    found = []

    def other():
        with _backends.use_backend("reference"):
            inside.set()
            done.wait(60)
            found.append(DETAILS.choose(X, 3))

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(60)
    assert DETAILS.choose(X, 3) == "cpp"
    # blocks of two threads may end in any order
    with _backends.use_backend("cpp"):
        done.set()
        thread.join()
        assert DETAILS.choose(X, 3) == "cpp"
    assert found == ["reference"]
    assert _backends.preferred() == ()


def test_a_preference_is_of_its_task():
    async def chosen(names):
        with _backends.use_backend(names):
            await asyncio.sleep(0.01)
            return DETAILS.choose(X, 3)

    async def both():
        return await asyncio.gather(chosen("reference"), chosen("cpp"))

    assert asyncio.run(both()) == ["reference", "cpp"]
    assert _backends.preferred() == ()


def test_a_gradient_keeps_the_preference_of_its_forward_pass():
    x = torch.rand(1, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    with _backends.use_backend("cpp"):
        out = atrous_details(x)
    errors, grads = [], []

    def backward():
        try:
            with _backends.use_backend("cuda"):
                grads.append(torch.autograd.grad(out.sum(), x)[0])
        except BackendError as error:
            errors.append(error)

    thread = threading.Thread(target=backward)
    thread.start()
    thread.join()
    assert errors == []
    torch.testing.assert_close(grads[0], torch.autograd.grad(atrous_details(x).sum(), x)[0])

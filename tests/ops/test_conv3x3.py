"""conv3x3: every kernel against the definition, weights that change, NaN, gradients, registration, compile, export."""

import pytest
import torch
import torch.nn.functional as F

from emsr_fast import BackendError, conv3x3
from emsr_fast.reference import conv3x3 as reference
from winograd import transformed

OP = torch.ops.emsr_fast.conv3x3.default
SIZES = [(1, 1), (1, 5), (5, 4), (7, 64), (41, 37), (113, 50)]
TRANSFORMED = [(16, 16), (32, 32), (48, 48), (64, 64), (128, 128), (16, 64), (64, 48), (128, 32)]
DIRECT = [(1, 64), (6, 64), (6, 16), (15, 48), (64, 1), (16, 1)]
EPILOGUES = ["none", "relu", "leaky_relu", "none+residual", "relu+residual", "leaky_relu+residual", "none+gate"]


def case(channels, size, epilogue, batch=2):
    """Return x, a weight of gain one, and the other arguments of an epilogue."""
    inputs, outputs = channels
    activation, _, second = epilogue.partition("+")
    others = {second: torch.randn(batch, outputs, *size)} if second else {}
    weight = torch.randn(outputs, inputs, 3, 3) * (9 * inputs) ** -0.5
    return torch.randn(batch, inputs, *size), weight, {"activation": activation, **others}


def exact(x, weight, others):
    return reference.conv3x3(
        x.double(), weight.double(), **{k: v.double() if k != "activation" else v for k, v in others.items()}
    )


EPS = torch.finfo(torch.float32).eps


def test_the_transforms_are_a_convolution():
    x, weight, _ = case((16, 32), (13, 18), "none")
    expected = F.conv2d(x.double(), weight.double(), padding=1)
    torch.testing.assert_close(transformed(x.double(), weight.double()), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("epilogue", EPILOGUES)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("channels", DIRECT + TRANSFORMED, ids=str)
def test_matches_reference(channels, size, epilogue):
    torch.manual_seed(0)
    x, weight, others = case(channels, size, epilogue)
    true = exact(x, weight, others)
    error = (conv3x3(x, weight, **others, backend="cpp") - true).abs().max()
    # no worse than twice the rounding error of the same formula in plain PyTorch, but for two roundings; what the
    # transforms add to it matters to the whole network: test_network.py
    if channels in DIRECT:
        plain = (reference.conv3x3(x, weight, **others) - true).abs().max()
    else:
        plain = (transformed(x, weight) - exact(x, weight, {"activation": "none"})).abs().max()
        plain = plain * others["gate"].abs().max() if "gate" in others else plain
    assert error <= 2 * plain + 2 * EPS * (1 + true.abs().max())


@pytest.mark.parametrize("channels", [(32, 32), (6, 16), (32, 1)], ids=str)
def test_takes_any_strides(channels):
    x, weight, others = case(channels, (14, 20), "none+gate")
    expected = conv3x3(x, weight, **others, backend="cpp")
    wide = torch.randn(2, 2 * channels[0], 28, 21)
    wide[:, ::2, ::2, 1:] = x
    others["gate"] = others["gate"].transpose(2, 3).contiguous().transpose(2, 3)
    for same in (wide[:, ::2, ::2, 1:], x.contiguous(memory_format=torch.channels_last), x.flip(3).flip(3)):
        for w in (weight, weight.transpose(0, 1).contiguous().transpose(0, 1)):
            assert torch.equal(conv3x3(same, w, **others, backend="cpp"), expected)


def test_an_image_of_a_batch_is_as_alone():
    x, weight, _ = case((64, 64), (9, 11), "none", batch=3)
    together = conv3x3(x, weight, backend="cpp")
    for i in range(3):
        assert torch.equal(conv3x3(x[i : i + 1], weight, backend="cpp"), together[i : i + 1])
    assert conv3x3(x[:0], weight).shape == (0, 64, 9, 11)


@pytest.mark.parametrize("channels", [(16, 16), (1, 16), (6, 32), (16, 1)], ids=str)
@pytest.mark.parametrize("epilogue", EPILOGUES)
def test_not_a_number_is_not_swallowed(channels, epilogue):
    x, weight, others = case(channels, (9, 10), epilogue)
    for tensor in (x, weight, *(t for k, t in others.items() if k != "activation")):
        before = tensor.flatten()[3].item()
        tensor.view(-1)[3] = float("nan")
        expected = conv3x3(x, weight, **others, backend="reference").isnan()
        assert expected.any()
        assert conv3x3(x, weight, **others, backend="cpp").isnan()[expected].all()
        tensor.view(-1)[3] = before


@pytest.mark.parametrize("epilogue", EPILOGUES)
def test_gradient(epilogue):
    x, weight, others = case((3, 4), (5, 4), epilogue, batch=1)
    activation = others.pop("activation")
    leaves = [t.double().requires_grad_() for t in (x, weight, *others.values())]

    def call(x, weight, *second):
        return conv3x3(x, weight, activation=activation, **dict(zip(others, second, strict=True)))

    assert torch.autograd.gradcheck(call, leaves)


def test_a_wanted_gradient_comes_from_torch_whatever_the_backend():
    x, weight, _ = case((16, 16), (6, 6), "none")
    weight.requires_grad_()
    (grad,) = torch.autograd.grad(conv3x3(x, weight, backend="cpp").square().sum(), weight)
    assert grad.abs().max() > 0


@pytest.mark.parametrize("epilogue", EPILOGUES)
@pytest.mark.parametrize("channels", [(16, 32), (6, 16), (16, 1), (5, 7)], ids=str)
def test_registration(channels, epilogue):
    x, weight, others = case(channels, (6, 9), epilogue)
    torch.library.opcheck(OP, (x, weight, others["activation"], others.get("residual"), others.get("gate"), "auto"))


def test_compile_has_no_graph_break_and_trains():
    x, weight, _ = case((16, 16), (8, 12), "none")
    fn = torch.compile(lambda t, w: conv3x3(t.relu(), w, activation="relu", residual=t), fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(fn(x, weight), conv3x3(x.relu(), weight, activation="relu", residual=x))
    weight.requires_grad_()
    compiled = torch.autograd.grad(fn(x, weight).square().sum(), weight)
    eager = torch.autograd.grad(conv3x3(x.relu(), weight, activation="relu", residual=x).square().sum(), weight)
    torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("wanted", [True, False], ids=["gradient", "no gradient"])
def test_export_is_dynamic_in_height_and_width(wanted):
    class Convolve(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(32, 16, 3, 3) / 12, requires_grad=wanted)

        def forward(self, x):
            return conv3x3(x, self.weight, activation="relu")

    size = {2: torch.export.Dim("h", min=2, max=512), 3: torch.export.Dim("w", min=2, max=512)}
    module = Convolve()
    program = torch.export.export(module, (torch.randn(1, 16, 40, 33),), dynamic_shapes=(size,))
    x = torch.randn(1, 16, 21, 50)
    torch.testing.assert_close(program.module()(x), module(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "gelu"}, "activation must be one of"),
        ({"x": torch.randn(16, 8, 8)}, r"x must be \(B, C, H, W\), .* got shape \(16, 8, 8\)"),
        ({"x": torch.randn(1, 16, 0, 8)}, r"at least one channel, row and column, got shape"),
        (
            {"x": torch.randn(1, 8, 8, 8)},
            r"weight must be \(C_out, 8, 3, 3\) for 8 channels, got shape \(16, 16, 3, 3\)",
        ),
        ({"residual": torch.randn(1, 16, 8, 1)}, r"residual must have shape \(1, 16, 8, 8\), got \(1, 16, 8, 1\)"),
        ({"gate": torch.randn(16)}, r"gate must have shape \(1, 16, 8, 8\), got \(16,\)"),
        ({"gate": torch.randn(1, 16, 8, 8), "activation": "relu"}, "gate takes the place of residual and activation"),
        ({"weight": torch.empty(16, 16, 3, 3, device="meta")}, "weight is on meta, x on cpu"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {"x": torch.randn(1, 16, 8, 8), "weight": torch.randn(16, 16, 3, 3), **change}
    with pytest.raises(ValueError, match=message):
        conv3x3(arguments.pop("x"), arguments.pop("weight"), **arguments)


def test_what_the_kernels_cannot_do_runs_on_the_reference():
    x, weight, _ = case((20, 16), (8, 8), "none")
    assert torch.equal(conv3x3(x, weight), reference.conv3x3(x, weight))
    with pytest.raises(BackendError, match=r"channels must be multiples of 16, .* got 20 to 16"):
        conv3x3(x, weight, backend="cpp")
    with pytest.raises(BackendError, match="the kernel computes in float32"):
        conv3x3(x.double(), weight.double(), backend="cpp")
    with torch.autocast("cpu", torch.bfloat16):
        assert conv3x3(x, weight).dtype == torch.bfloat16

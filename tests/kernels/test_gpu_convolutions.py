"""The convolutions on a GPU: against float64 in both halves, NaN, gradients, registration, compile, capture."""

import copy

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from emsr_fast import BackendError, _backends, conv3x3, edge_gate, load_model, upsample_to_image
from emsr_fast.ops.conv3x3 import why_not_precision

cuda = pytest.mark.cuda
HALVES = [torch.float16, torch.bfloat16]
SIZES = [(1, 1), (1, 5), (7, 64), (41, 129), (130, 341)]
CHANNELS = [(64, 64), (32, 64), (16, 16), (64, 576), (1, 64), (6, 64), (14, 32), (64, 1), (16, 1)]
EPILOGUES = ["none", "relu", "leaky_relu+residual", "none+gate"]


@pytest.fixture
def gpu():
    if reason := _backends.why_not_here("triton"):
        pytest.skip(reason)
    torch.manual_seed(0)
    return torch.device("cuda")


def convolution(channels, size, epilogue, dtype, gpu):
    """Return the operator and its arguments, keywords behind."""
    inputs, outputs = channels
    activation, _, second = epilogue.partition("+")
    x = torch.randn(2, inputs, *size, device=gpu, dtype=dtype)
    weight = (torch.randn(outputs, inputs, 3, 3, device=gpu) * (9 * inputs) ** -0.5).to(dtype)
    others = {second: torch.randn(2, outputs, *size, device=gpu, dtype=dtype)} if second else {}
    return conv3x3, (x, weight), {"activation": activation, **others}


def gating(c, size, dtype, gpu):
    k1, k3 = (torch.randn(2, c, c, 3, 3, device=gpu) * (9 * c) ** -0.5).to(dtype)
    k2, bias = (torch.randn(c, c, 1, 1, device=gpu) * c**-0.5).to(dtype), torch.randn(c, device=gpu).to(dtype)
    return edge_gate, (torch.randn(2, c, *size, device=gpu).to(dtype), k1, k2, bias, k3), {}


def upsampling(c, scale, size, dtype, gpu):
    up = (torch.randn(scale * scale * c, c, 3, 3, device=gpu) * (9 * c) ** -0.5).to(dtype)
    out = (torch.randn(1, c, 3, 3, device=gpu) * (9 * c) ** -0.5).to(dtype)
    return upsample_to_image, (torch.randn(2, c, *size, device=gpu).to(dtype), up, out, scale), {}


def doubled(value):
    return value.double() if isinstance(value, torch.Tensor) else value


def assert_matches_definition(operator, arguments, others):
    exact = operator(*map(doubled, arguments), **{k: doubled(v) for k, v in others.items()}, backend="reference")
    plain = operator(*arguments, **others, backend="reference")
    with torch.inference_mode():
        out = operator(*arguments, **others, backend="triton")
    # no worse than twice the rounding error of the same formula in plain PyTorch, but for the rounding of the result
    rounding = torch.finfo(out.dtype).eps / 2 * exact.abs().max()
    assert (out - exact).abs().max() <= 2 * (plain - exact).abs().max() + rounding


@cuda
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("channels", CHANNELS, ids=str)
def test_convolutions_match_the_definition(gpu, channels, size, dtype):
    for epilogue in EPILOGUES:
        assert_matches_definition(*convolution(channels, size, epilogue, dtype, gpu))


@cuda
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("c", [16, 32, 64])
def test_gate_and_upsampler_match_the_definition(gpu, c, size, dtype):
    assert_matches_definition(*gating(c, size, dtype, gpu))
    for scale in (2, 3, 4):
        assert_matches_definition(*upsampling(c, scale, size, dtype, gpu))


@cuda
def test_any_strides_match_the_definition(gpu):
    operator, (x, weight), others = convolution((32, 32), (30, 22), "none+gate", torch.float16, gpu)
    expected = operator(x, weight, **others, backend="triton")
    wide = torch.full((2, 64, 60, 23), float("nan"), device=gpu, dtype=torch.float16)
    wide[:, ::2, ::2, 1:] = x
    assert torch.equal(operator(wide[:, ::2, ::2, 1:], weight, **others, backend="triton"), expected)


@cuda
def test_not_a_number_is_not_swallowed(gpu):
    for operator, arguments, others in (
        convolution((64, 64), (9, 70), "relu", torch.float16, gpu),
        gating(64, (9, 70), torch.float16, gpu),
        upsampling(64, 3, (9, 70), torch.float16, gpu),
    ):
        arguments[0].view(-1)[1234] = float("nan")
        expected = operator(*arguments, **others, backend="reference").isnan()
        assert expected.any()
        assert operator(*arguments, **others, backend="triton").isnan()[expected].all()


@cuda
def test_images_beyond_two_to_the_31_elements(gpu):
    if torch.cuda.mem_get_info()[0] < 24e9:
        pytest.skip("needs 24 GB of free GPU memory")
    _, (x, weight), _ = convolution((64, 64), (1, 1), "none", torch.float16, gpu)
    x = torch.zeros(1, 64, 6200, 6000, device=gpu, dtype=torch.float16, memory_format=torch.channels_last)
    x[:, :, -20:] = torch.randn(1, 64, 20, 6000, device=gpu)
    out = conv3x3(x, weight, backend="triton")[:, :, -10:]
    expected = conv3x3(x[:, :, -20:].contiguous(), weight, backend="triton")[:, :, -10:]
    assert torch.equal(out, expected)


@cuda
@pytest.mark.parametrize("make", [convolution, gating, upsampling], ids=lambda f: f.__name__)
def test_registration(gpu, make):
    parts = {convolution: ((64, 64), (6, 9), "relu"), gating: (16, (6, 9)), upsampling: (16, 3, (6, 9))}[make]
    operator, arguments, _ = make(*parts, torch.float16, gpu)
    overload = getattr(torch.ops.emsr_fast, operator.__name__).default
    if operator is conv3x3:
        arguments = (*arguments, "relu", None, None)
    torch.library.opcheck(overload, (*arguments, "triton"))


@cuda
@pytest.mark.parametrize("make", [convolution, gating, upsampling], ids=lambda f: f.__name__)
def test_capture_and_compile(gpu, make):
    parts = {convolution: ((64, 64), (30, 70), "relu"), gating: (64, (30, 70)), upsampling: (64, 3, (30, 70))}[make]
    operator, (x, *rest), others = make(*parts, torch.float16, gpu)

    def run(t):
        return operator(t, *rest, **others, backend="triton")

    with torch.inference_mode():
        expected = run(x)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = run(x)
        out.fill_(float("nan"))
        graph.replay()
        assert torch.equal(out, expected)
        compiled = torch.compile(run, fullgraph=True, mode="reduce-overhead")
        for _ in range(3):
            assert torch.equal(compiled(x), expected)


@cuda
@pytest.mark.parametrize("module", ["conv3x3", "edge_gate", "upsample_to_image"])
def test_gradients_on_the_gpu(gpu, module):
    c = 2
    leaves = [(1, c, 4, 5), *{
        "conv3x3": [(c, c, 3, 3)],
        "edge_gate": [(c, c, 3, 3), (c, c, 1, 1), (c,), (c, c, 3, 3)],
        "upsample_to_image": [(4 * c, c, 3, 3), (1, c, 3, 3)],
    }[module]]  # fmt: skip
    tensors = [torch.randn(shape, dtype=torch.float64, device=gpu, requires_grad=True) for shape in leaves]
    scale = (2,) if module == "upsample_to_image" else ()
    operator = {"conv3x3": conv3x3, "edge_gate": edge_gate, "upsample_to_image": upsample_to_image}[module]
    assert torch.autograd.gradcheck(lambda *t: operator(*t, *scale), tensors)


@cuda
@pytest.mark.parametrize("name", ["emsr-x3-small", "emsr-x3"])
def test_half_precision_keeps_grey_levels(gpu, examples, name):
    stack = tifffile.imread(examples / "flyem_fibsem_10nm_48x192x192.tif")
    sem = np.asarray(Image.open(examples / "rat_spinal_whitematter_sem_70nm_512.png"))
    model = load_model(name, device="cuda")
    exact = copy.deepcopy(model).double()
    half = model.half().to(memory_format=torch.channels_last)
    for image in (stack[24], sem):
        y = torch.from_numpy(image / 255.0).to(gpu)
        with torch.inference_mode():
            error = (half(y.half()).double() - exact(y)).abs()
        assert error.max() <= 1 / 255
        assert -10 * torch.log10(error.square().mean()) > 55


def test_precision_decides_which_kernels_run():
    halves = [torch.zeros(1, dtype=torch.float16)] * 2
    assert why_not_precision("triton", *halves) is None
    assert "in TF32, float32 would lose 13 of its 24 bits" in why_not_precision("triton", torch.zeros(1))
    assert "x is torch.float16, not every" in why_not_precision("triton", halves[0], torch.zeros(1))
    with pytest.raises(BackendError, match="backend 'triton' cannot run: x is on cpu, triton needs a CUDA device"):
        conv3x3(torch.zeros(1, 16, 4, 4), torch.zeros(16, 16, 3, 3), backend="triton")

"""Emsr: golden vectors, sizes, batches, precision, shift equivariance."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from emsr_fast import Emsr, EmsrConfig, _backends, atrous_details, load_model

SMALL = {"features": 16, "blocks": 2, "heads": 4}
GOLDEN = [("small_x3", size) for size in ("32x32", "48x64", "41x41", "37x50")] + [("small_x2", "32x48")]


@pytest.mark.parametrize("backend", ["reference", "cpp"])
@pytest.mark.parametrize(("name", "size"), GOLDEN)
def test_golden_vectors(data, name, size, backend):
    vectors = load_file(data / f"{name}.io.safetensors")
    x, y, edges = (vectors[f"{kind}_{size}"] for kind in ("x", "y", "edges"))
    model = load_model(data / f"{name}.weights.safetensors", device="cpu")
    assert model.config.window_fit == "resize"
    with torch.no_grad(), _backends.use_backend(backend):
        assert (model(x) - y).abs().max() <= 1e-5 * y.abs().max()
        assert (atrous_details(x, model.config.levels) - edges).abs().max() <= 1e-5 * edges.abs().max()


@pytest.fixture(scope="module")
def networks():
    """The shipped network and the paper's with random weights, each in float32 and float64."""
    torch.manual_seed(0)
    models = {"shipped": load_model(device="cpu"), "papers": Emsr().eval()}
    return {name: (model, copy.deepcopy(model).double()) for name, model in models.items()}


SHIPPED = [("shipped", size) for size in [(1, 1), (5, 5), (1, 9), (41, 41), (113, 50), (113, 113), (341, 341)]]
# a few pixels of random weights say little about rounding: one of them may be right by chance
PAPERS = [("papers", size) for size in [(41, 41), (113, 50)]]


@pytest.mark.parametrize(("which", "size"), SHIPPED + PAPERS, ids=str)
def test_kernels_err_at_most_twice_as_much_as_torch(networks, which, size, examples):
    model, exact = networks[which]
    image = np.asarray(Image.open(examples / "rat_spinal_whitematter_sem_70nm_512.png")) / np.float32(255)
    y = torch.from_numpy(image[150 : 150 + size[0], 90 : 90 + size[1]])
    with torch.no_grad():
        with _backends.use_backend("reference"):
            true, plain = exact(y.double()), model(y)
        with _backends.use_backend("cpp"):
            fast = model(y)
    assert (fast - true).abs().max() <= 2 * (plain - true).abs().max() + 1e-7 * true.abs().max()


def test_every_golden_vector_is_tried(data):
    stored = {
        (path.name.split(".")[0], key[2:])
        for path in data.glob("*.io.safetensors")
        for key in load_file(path)
        if key[0] == "y"
    }
    assert stored == set(GOLDEN)


def test_the_papers_network_has_its_parameters():
    assert sum(p.numel() for p in Emsr().parameters()) == 3_124_032


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 2), (5, 12), (16, 17)], ids=str)
def test_any_size_and_scale(scale, size):
    model = Emsr(EmsrConfig(scale=scale, **SMALL))
    with torch.no_grad():
        out = model(torch.rand(2, 1, *size))
    assert out.shape == (2, 1, scale * size[0], scale * size[1])
    assert torch.isfinite(out).all()


def test_one_image_or_a_batch():
    model = load_model()
    batch = torch.rand(3, 1, 20, 24)
    with torch.no_grad():
        together = model(batch)
        torch.testing.assert_close(model(batch[1, 0]), together[1, 0], rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"got shape \(2, 3, 8, 8\)"):
        model(torch.rand(2, 3, 8, 8))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_other_precisions(dtype):
    model, x = load_model(), torch.rand(1, 1, 24, 20)
    with torch.no_grad():
        exact = model(x)
        out = model.to(dtype)(x.to(dtype))
    assert out.dtype == dtype
    assert (out.float() - exact).abs().max() < (1e-4 if dtype == torch.float64 else 0.05)


def test_shift_by_a_window_shifts_the_output():
    # far from the border: the receptive radius of two blocks is below 80 px
    model, x = load_model(), torch.rand(1, 1, 176, 176)
    with torch.no_grad():
        whole, shifted = model(x), model(x[:, :, 8:, 4:])
    inside = slice(3 * 80, 3 * 88)
    moved = shifted[..., 3 * 72 : 3 * 80, 3 * 76 : 3 * 84]
    torch.testing.assert_close(moved, whole[..., inside, inside], rtol=1e-5, atol=1e-5)


def test_whole_network_trains_and_compiles():
    model = Emsr(EmsrConfig(features=16, blocks=1, heads=4))
    x = torch.rand(1, 1, 16, 16)
    eager = torch.autograd.grad(model(x).square().mean(), list(model.parameters()))
    assert all(torch.isfinite(g).all() and g.abs().max() > 0 for g in eager)
    compiled = torch.compile(model, fullgraph=True)
    torch.testing.assert_close(
        torch.autograd.grad(compiled(x).square().mean(), list(model.parameters())), eager, rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scale": 5}, "scale must be a whole number from 1 to 4, got 5"),
        ({"scale": 1}, "scale must be 2, 3 or 4, got 1"),
        ({"levels": 2.5}, "levels must be a whole number from 1 to 8, got 2.5"),
        ({"blocks": True}, "blocks must be a whole number from 1 to 64, got True"),
        ({"heads": 7}, "heads must divide features, got 7 heads for 64"),
        ({"blocks": 0}, "blocks must be a whole number from 1 to 64, got 0"),
        ({"window_fit": "crop"}, "window_fit must be 'pad' or 'resize', got 'crop'"),
    ],
)
def test_bad_configurations_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        EmsrConfig(**fields)


def test_forward_derivatives_are_those_of_the_definition():
    torch.manual_seed(0)
    model = Emsr(EmsrConfig(features=16, blocks=1, heads=4)).eval()
    x, direction = torch.rand(2, 1, 1, 9, 11).double()

    def derivative(model, dtype):
        with torch.no_grad():
            return torch.func.jvp(model, (x.to(dtype),), (direction.to(dtype),))[1]

    found = derivative(model, torch.float32)
    with _backends.use_backend("reference"):
        expected = derivative(model.double(), torch.float64)
    # an operator without a forward derivative would have said 0
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))

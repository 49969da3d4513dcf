"""Prediction: nothing moves, nothing is written twice, and what an engine does wrong is said."""

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinates import CoordinateEngine
from emsr_fast import load_model
from emsr_fast.engine import TorchEngine
from emsr_fast.errors import BackendError, VolumeError
from emsr_fast.infer.job import infer
from emsr_fast.io.intensity import Normalisation, measure
from streaming import ArraySource, streamed
from sweeps import quick_of

SIDES = [1, 2, 3, 4, 5, 7, 11, 96, 97, 331, 341, 997, 1000]


class BilinearEngine:
    """Linear interpolation at pixel centres: exact on a ramp, but for the outer pixel of what it sees."""

    name, scale = "bilinear", 3

    def run(self, batch):
        tiles = torch.from_numpy(batch).double()
        large = torch.nn.functional.interpolate(tiles, scale_factor=3, mode="bilinear", align_corners=False)
        return large.float().numpy()


class BrokenEngine:
    """Returns, or raises, what it is given."""

    name, scale = "broken", 3

    def __init__(self, make):
        self.make = make

    def run(self, batch):
        return self.make((len(batch), 1, 3 * batch.shape[2], 3 * batch.shape[3]))


@settings(deadline=None, max_examples=60)
@given(
    depth=st.integers(1, 3),
    height=st.sampled_from(SIDES),
    width=st.sampled_from(SIDES),
    data=st.data(),
)
def test_a_coordinate_ramp_comes_back_where_it_was(depth, height, width, data):
    if height * width > 10**5:
        depth = 1
    # tiles down to 4 px, but not a hundred thousand of them
    smallest = max(1, max(height, width) // 80)
    tile = 4 * data.draw(st.integers(smallest, 260), label="tile / 4")
    halo = 4 * data.draw(st.integers(0, 30), label="halo / 4")
    ramp = np.arange(height * width, dtype=np.float32).reshape(1, height, width).repeat(depth, axis=0)
    done = []
    result = streamed(CoordinateEngine(width), ramp, tile=(tile, tile), halo=halo, progress=done.append)
    # float32 holds these whole numbers exactly: 3000 * 3000 < 2**24
    assert (result.pixels == np.arange(9 * height * width).reshape(1, 3 * height, 3 * width)).all()
    assert sum(done) == result.statistics.lr_pixels == depth * height * width


@pytest.mark.parametrize("side", [7, 96, 97, 341])
@pytest.mark.parametrize(("tile", "halo"), [(4, 4), (32, 8), (64, 4), (512, 0)])
def test_a_linear_ramp_keeps_its_pixel_centres(side, tile, halo):
    rows, cols = np.mgrid[:side, :side].astype(np.float32)
    result = streamed(BilinearEngine(), (rows + 2 * cols)[None], tile=(tile, tile), halo=halo)
    # the centre of HR pixel i lies at (i + 1/2) / 3 - 1/2 LR pixels
    centres = (np.arange(3 * side) + 0.5) / 3 - 0.5
    exact = centres[:, None] + 2 * centres
    inside = slice(2, -2)
    assert np.abs(result.pixels[0] - exact)[inside, inside].max() <= 1e-4


def test_integers_are_clipped_and_rounded_never_wrapped():
    values = iter([-0.01, 1.01, 2.5 / 255, 3.5 / 255])
    engine = BrokenEngine(lambda shape: np.full(shape, next(values), np.float32))
    result = streamed(engine, np.zeros((4, 1, 1), np.uint8), grey=Normalisation(0, 255, "given"))
    assert result.pixels[:, 0, 0].tolist()[:2] == [0, 255]
    assert set(result.pixels[2:].ravel()) <= {2, 3, 4}
    assert result.statistics.clipped == 2 * 9


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
def test_the_measured_range_is_inverted_on_output(dtype):
    stack = np.random.default_rng(0).integers(-3000, 3000, (3, 16, 16)).astype(dtype)
    nearest = BrokenEngine(lambda shape: None)
    nearest.run = lambda batch: batch.repeat(3, axis=2).repeat(3, axis=3)
    result = streamed(nearest, stack, grey=measure(ArraySource(stack)))
    large = stack.repeat(3, axis=1).repeat(3, axis=2)
    # a float32 between 0 and 1 has 24 bits: enough to give every 16-bit value back
    assert np.abs(result.pixels.astype(float) - large).max() <= (0 if dtype != np.float32 else 1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda shape: np.zeros((*shape[:2], 3, 3), np.float32), r"returned shape \(1, 1, 3, 3\)"),
        (lambda shape: np.full(shape, np.nan, np.float32), "returned 576 NaN or infinite"),
        (lambda shape: (_ for _ in ()).throw(RuntimeError("CUDA out of memory. Tried")), "smaller `tile`"),
        (lambda shape: (_ for _ in ()).throw(MemoryError()), "smaller `tile`"),
    ],
)
def test_what_an_engine_does_wrong_is_said_with_its_place(make, message):
    with pytest.raises(BackendError, match=message) as raised:
        streamed(BrokenEngine(make), np.zeros((1, 8, 8), np.uint8))
    assert "slice 0, rows 0:8, columns 0:8" in str(raised.value)


def test_a_fault_of_the_engine_that_is_not_memory_is_not_renamed():
    def fail(shape):
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        streamed(BrokenEngine(fail), np.zeros((1, 8, 8), np.uint8))


def test_nan_pixels_are_named_with_slice_count_and_position():
    stack = np.random.default_rng(0).random((40, 9, 9), dtype=np.float32)
    stack[39, 4, 7] = np.nan
    stack[39, 8, 0] = np.inf
    with pytest.raises(VolumeError, match=r"slice 39 .* has 2 NaN or infinite pixels, the first at row 4, column 7"):
        streamed(BilinearEngine(), stack, tile=(4, 4))


def test_tiled_equals_untiled_with_a_halo_as_wide_as_the_network_sees(examples):
    network = load_model(device="cpu", window_fit="pad")
    image = tifffile.imread(examples / "flyem_fibsem_10nm_48x192x192.tif", key=[0, 1])
    strip = np.concatenate(list(image), axis=1)[None, 40:63, :262].astype(np.float32) / 255
    whole = streamed(TorchEngine(network), strip, tile=(264, 264), halo=0)
    tiled = streamed(TorchEngine(network), strip, tile=(64, 64), halo=112)
    assert np.abs(tiled.pixels - whole.pixels).max() <= 1e-5 * np.abs(whole.pixels).max()


@pytest.mark.parametrize("shape", quick_of([(1, 20000), (32, 20000), (20000, 1)], [(1, 20000)]), ids=str)
def test_long_narrow_images_run_and_their_pixels_do_not_depend_on_the_tile(tmp_path, shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    tifffile.imwrite(tmp_path / "in.tif", pixels, photometric="minisblack")
    for name, options in (("whole", {}), ("tiles", {"tile": 4096, "halo": 64})):
        done = infer(tmp_path / "in.tif", tmp_path / f"{name}.tif", **options)
        assert done["shape"] == [1, 3 * shape[0], 3 * shape[1]]
    whole, tiles = (tifffile.imread(tmp_path / f"{name}.tif") for name in ("whole", "tiles"))
    assert np.abs(whole.astype(int) - tiles).max() <= 1

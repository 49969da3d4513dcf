"""Grey values of 8 bits to and from an engine's device: the bits that the host's conversion gives, in and out."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from emsr_fast import BackendError, Emsr, EmsrConfig, load_model
from emsr_fast.engine import TorchEngine
from emsr_fast.engine import grey as conversion
from emsr_fast.engine.base import Grey, GreyTiles
from emsr_fast.engine.tile_pipeline import DEPTH, TilePipeline
from emsr_fast.infer.engine_feed import TileTooLarge, grey_of
from emsr_fast.io.intensity import Normalisation
from emsr_fast.io.registry import open_source
from emsr_fast.trust.maps import Trust
from streaming import ArraySource, streamed

SMALL = EmsrConfig(features=16, blocks=1, heads=4)
BYTE = np.dtype("u1")
RANGES = [(0.0, 255.0), (12.0, 231.0), (-0.3, 0.1), (17.25, 17.5), (100.0, 1e6)]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
INTEGERS = torch.arange(-300, 600, dtype=torch.float64)
# halves are even and odd, above and below the range; what lies just beside them is not rounded as they are
EDGES = torch.cat([INTEGERS, INTEGERS + 0.5, INTEGERS + 0.5 - 2**-13, INTEGERS + 0.5 + 2**-13])
EDGES = torch.cat([EDGES, torch.tensor([-0.0, 1e-40, -1e-40, 65504, -65504, 1e30, -1e30], dtype=torch.float64)])


def engine_in_pipeline():
    """Return an engine on the CPU that copies and converts as one on a GPU does."""
    torch.manual_seed(0)
    engine = TorchEngine(Emsr(SMALL))
    engine._pipeline = TilePipeline(engine.model, torch.device("cpu"))
    return engine


def as_grey(image, normalisation, part=None):
    pixels, (clipped, not_finite) = conversion.from_model(image, normalisation.low, normalisation.high, part)
    return pixels.numpy(), int(clipped), int(not_finite)


@pytest.mark.parametrize("limits", RANGES, ids=str)
def test_the_network_sees_of_every_grey_value_what_the_host_gives_it(limits):
    normalisation = Normalisation(*limits, "given")
    values = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    grey = grey_of(engine_in_pipeline(), normalisation, BYTE, BYTE, None)
    seen = conversion.to_model(torch.from_numpy(values), torch.from_numpy(grey.table))
    assert seen.dtype == torch.float32
    assert np.array_equal(seen.numpy().view(np.int32), normalisation.to_model(values).view(np.int32))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("limits", [(0.0, 1.0), *RANGES], ids=str)
def test_edge_cases_are_rounded_and_clipped_as_on_the_host(limits, dtype):
    normalisation = Normalisation(*limits, "given")
    # with 0:1 exactly what it says, with the others whatever becomes of it
    image = (EDGES if limits == (0.0, 1.0) else EDGES / 255).to(dtype)
    image = image[image.isfinite()][None, None, None]
    expected, clipped = normalisation.from_model(image.float().numpy(), BYTE)
    pixels, found, not_finite = as_grey(image, normalisation)
    assert pixels.dtype == BYTE
    assert np.array_equal(pixels, expected)
    assert (found, not_finite) == (clipped, 0)
    assert 0 < clipped < image.numel()


@given(
    low=st.floats(-1e6, 1e6), width=st.floats(1e-3, 1e6),
    values=st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=50),
)  # fmt: skip
def test_any_range_gives_the_bits_of_the_host(low, width, values):
    normalisation = Normalisation(low, low + width, "given")
    image = torch.tensor(values, dtype=torch.float32)[None, None, None]
    expected, clipped = normalisation.from_model(image.numpy(), BYTE)
    pixels, found, _ = as_grey(image, normalisation)
    assert np.array_equal(pixels, expected)
    assert found == clipped


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_not_finite_is_counted_also_where_it_is_cut_off(dtype):
    image = torch.full((1, 1, 4, 5), 0.5, dtype=dtype)
    image[0, 0, 0, 0], image[0, 0, 3, 4], image[0, 0, 1, 1] = float("nan"), float("inf"), -float("inf")
    pixels, _, not_finite = as_grey(image, Normalisation(0, 255, ""), (slice(1, 3), slice(1, 5)))
    assert pixels.shape == (1, 1, 2, 4)
    assert not_finite == 3


def test_bytes_go_to_the_engine_only_where_both_sides_have_them():
    engine, normalisation = engine_in_pipeline(), Normalisation(0, 255, "")
    wide, trust = np.dtype("u2"), Trust.__new__(Trust)
    assert grey_of(engine, normalisation, BYTE, BYTE, None) is not None
    assert grey_of(engine, normalisation, wide, wide, None) is None
    assert grey_of(engine, normalisation, BYTE, np.dtype("f4"), None) is None
    assert grey_of(engine, normalisation, BYTE, BYTE, trust) is None
    plain = TorchEngine(Emsr(SMALL))
    assert grey_of(plain, normalisation, BYTE, BYTE, None) is None
    with pytest.raises(ValueError, match="takes float32 tiles only"):
        plain.submit(np.zeros((1, 1, 4, 4), np.uint8), grey_of(engine, normalisation, BYTE, BYTE, None))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_tile_of_bytes_becomes_what_a_tile_of_floats_becomes(dtype):
    torch.manual_seed(0)
    # a CPU computes in halves, too, on the reference
    pipeline = TilePipeline(Emsr(SMALL).eval().to(dtype), torch.device("cpu"))
    normalisation = Normalisation(20.0, 200.0, "given")
    grey = grey_of(engine_in_pipeline(), normalisation, BYTE, BYTE, None)
    rng = np.random.default_rng(0)
    for size, part in (
        ((12, 16), None),
        ((9, 7), (slice(3, 20), slice(0, 21))),
        ((12, 16), (slice(6, 36), slice(0, 48))),
    ):
        batch = rng.integers(0, 256, (2, 1, *size), dtype=np.uint8)
        result = pipeline.collect(pipeline.submit(batch, grey, part))
        floats = pipeline.collect(pipeline.submit(normalisation.to_model(batch)))
        assert isinstance(result, GreyTiles)
        expected, clipped = normalisation.from_model(floats[(..., *part)] if part else floats, BYTE)
        assert np.array_equal(result.pixels, expected)
        assert (result.clipped, result.not_finite) == (clipped, 0)


def predicted(engine, source):
    """Return the output volume of ``source`` in small tiles, and what was done."""
    done = streamed(engine, source, grey=Normalisation(30, 190, ""), tile=(40, 48), halo=8, block=(2, 80, 96))
    return done.pixels, done.statistics


class Watched(TilePipeline):
    """Notes the dtypes that cross, and how many batches are under way at most."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.crossed, self.under_way, self.most = set(), 0, 0

    def submit(self, batch, grey=None, part=None):
        ticket = super().submit(batch, grey, part)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        self.crossed |= {buffer.dtype for buffer in (ticket.slot.device_in, ticket.slot.host_out)}
        return ticket

    def collect(self, ticket):
        self.under_way -= 1
        return super().collect(ticket)


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_a_volume_through_the_pipeline_has_the_bytes_of_the_host_path(stack, dtype):
    with open_source(stack) as opened:
        image = np.stack([opened.read(z, slice(0, 90), slice(50, 170)) for z in range(3)])
    source = ArraySource(image.astype(dtype))
    engine = engine_in_pipeline()
    expected, done = predicted(TorchEngine(engine.model), source)
    engine._pipeline = watched = Watched(engine.model, torch.device("cpu"))
    found, also_done = predicted(engine, source)
    assert np.array_equal(found, expected)
    assert (also_done.clipped, also_done.blocks, also_done.lr_pixels) == (done.clipped, done.blocks, done.lr_pixels)
    assert watched.crossed == {torch.uint8 if dtype == "u1" else torch.float32}
    assert (watched.most, watched.under_way) == (DEPTH, 0)


def test_a_network_that_makes_nan_is_said_so_with_bytes_too():
    engine, source = engine_in_pipeline(), ArraySource(np.zeros((1, 20, 20), np.uint8))
    with torch.no_grad():
        engine.model.conv_in.weight[0] = float("nan")
    with pytest.raises(BackendError, match=r"returned 3,600 NaN or infinite pixels for slice 0, rows 0:20"):
        predicted(engine, source)


@pytest.mark.parametrize("where", ["submit", "collect"])
def test_memory_that_ends_on_the_way_names_the_tile(where, monkeypatch):
    engine, calls = engine_in_pipeline(), []
    original = getattr(TilePipeline, where)

    def failing(self, *arguments):
        calls.append(1)
        if len(calls) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return original(self, *arguments)

    monkeypatch.setattr(TilePipeline, where, failing)
    source = ArraySource(np.full((3, 40, 48), 9, np.uint8))  # of zeros, which are padding, nothing is computed
    with pytest.raises(TileTooLarge, match=r"a tile of 40x48 px \(slice 2, rows 0:40, columns 0:48\); give a smaller"):
        predicted(engine, source)


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_gpu_converts_to_the_bits_of_the_host(precision):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    engine, normalisation = TorchEngine(load_model(device="cuda"), precision), Normalisation(20.0, 200.0, "given")
    grey, rng = grey_of(engine, normalisation, BYTE, BYTE, None), np.random.default_rng(0)
    batches = [rng.integers(0, 256, (1, 1, *size), dtype=np.uint8) for size in 3 * ((40, 40), (40, 24))]
    parts = [(slice(3 * n, 90), slice(0, 60)) for n in range(len(batches))]
    tickets = [engine.submit(batch, grey, part) for batch, part in zip(batches, parts, strict=True)]
    for ticket, batch, part in zip(tickets, batches, parts, strict=True):
        result = engine.collect(ticket)
        wanted, clipped = normalisation.from_model(engine.run(normalisation.to_model(batch))[(..., *part)], BYTE)
        assert np.array_equal(result.pixels, wanted)
        assert (result.clipped, result.not_finite) == (clipped, 0)


@pytest.mark.filterwarnings("error")
def test_pixels_that_may_not_be_written_are_read_without_a_word():
    engine = engine_in_pipeline()
    batch = np.random.default_rng(0).integers(0, 256, (1, 1, 9, 12), dtype=np.uint8)
    grey = Grey(np.arange(256, dtype=np.float32) / np.float32(255), 0.0, 255.0)
    expected = engine.collect(engine.submit(batch, grey, None)).pixels
    batch.setflags(write=False)
    assert np.array_equal(engine.collect(engine.submit(batch, grey, None)).pixels, expected)

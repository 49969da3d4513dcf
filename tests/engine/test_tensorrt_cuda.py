"""TensorRT on a GPU: `pytest -m cuda`; none of this runs without one."""

import threading

import numpy as np
import pytest
import torch

from emsr_fast import load_model
from emsr_fast.convert.accuracy import in_pytorch, real_tiles, tolerance
from emsr_fast.convert.shapes import Shapes
from emsr_fast.convert.tensorrt_builder import load_provider, why_not_installed
from emsr_fast.engine import cache, open_engine
from emsr_fast.engine.factory import why_not_engine
from emsr_fast.errors import BackendError

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(params=["tensorrt", "tensorrt-rtx"])
def provider(request):
    if reason := why_not_installed(request.param) or why_not_engine("trt"):
        pytest.skip(reason)
    try:
        return load_provider(request.param, torch.cuda.get_device_capability()).name
    except BackendError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def model():
    return load_model(device="cpu")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_an_engine_passes_its_truth_test_and_says_what_its_layers_are(provider, model, precision, capsys):
    shapes, lines = Shapes.only(1, 160, 160), []
    engine, truth = open_engine("trt", model, shapes=shapes, precision=precision, provider=provider, say=lines.append)
    assert truth["passed"]
    assert truth["rows_differ"] == 0
    with capsys.disabled():
        print("", *lines, sep="\n")
    tiles = real_tiles(160, 160)
    error = np.abs(engine.run(tiles) - in_pytorch(model, tiles))
    assert tolerance(model, precision).why_not(error) is None


def test_shapes_that_vary_and_batches_that_are_not_full(provider, model):
    shapes = Shapes((2, 61, 61), (2, 64, 64), (2, 64, 64))
    engine, _ = open_engine("trt", model, shapes=shapes, provider=provider)
    allowed = tolerance(model, "fp16")
    for count, rows, cols in ((1, 64, 64), (5, 61, 63), (3, 64, 62), (5, 61, 63)):
        tiles = np.resize(real_tiles(rows, cols), (count, 1, rows, cols))
        assert allowed.why_not(np.abs(engine.run(tiles) - in_pytorch(model, tiles))) is None
    with pytest.raises(BackendError, match="was given tiles of 65x64 px"):
        engine.run(np.zeros((1, 1, 65, 64), np.float32))


def test_threads_share_an_engine(provider, model):
    engine, _ = open_engine("trt", model, shapes=Shapes.only(1, 64, 64), provider=provider)
    tiles = [real_tiles(64, 64) * np.float32(0.5 + 0.1 * i) for i in range(6)]
    alone = [engine.run(batch) for batch in tiles]
    together: list = [None] * len(tiles)

    def work(i):
        for _ in range(20):
            together[i] = engine.run(tiles[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(tiles))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(alone, together, strict=True):
        assert (one == other).all()


def test_an_engine_of_another_machine_is_built_again(provider, model):
    shapes, lines = Shapes.only(1, 64, 64), []
    open_engine("trt", model, shapes=shapes, provider=provider)
    (entry,) = [entry for entry in cache.entries() if entry.kind == "engine"]
    # whole by its checksum, and no engine: as after a change of the library under the same version
    payload = b"\0" * entry.size
    entry.payload_path.write_bytes(payload)
    entry.sha256 = __import__("hashlib").sha256(payload).hexdigest()
    entry.write()
    engine, truth = open_engine("trt", model, shapes=shapes, provider=provider, say=lines.append)
    assert any("does not load the engine" in line and "made again" in line for line in lines)
    assert truth["passed"]
    assert engine.run(real_tiles(64, 64)).shape == (2, 1, 192, 192)

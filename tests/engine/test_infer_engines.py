"""A volume through another engine is the volume that PyTorch makes."""

import json

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st

from emsr_fast import Emsr, EmsrConfig, load_model, save_model
from emsr_fast.cli import main
from emsr_fast.convert.accuracy import tolerance
from emsr_fast.engine import TorchEngine, check_engine
from emsr_fast.errors import UsageError
from emsr_fast.infer.tiles import grown, grown_sides, tiles_of
from emsr_fast.io.intensity import Normalisation
from streaming import streamed


def test_onnxruntime_makes_the_volume_that_torch_makes(stack, tmp_path, capsys):
    pixels = tifffile.imread(stack, key=[0, 1])[:, :97, :130].astype(np.float32) / 255
    source = tmp_path / "in.tif"
    tifffile.imwrite(source, pixels, photometric="minisblack")
    # a network of seconds to export; odd sides, several tiles
    torch.manual_seed(0)
    model = Emsr(EmsrConfig(features=16, blocks=1, heads=4))
    file = str(tmp_path / "tiny.safetensors")
    save_model(model, file)
    options = ["--model", file, "--tile", "64", "--halo", "16", "--range", "0:1", "--json"]
    done = {}
    for engine in ("torch", "onnx"):
        code = main(["infer", str(source), "-o", str(tmp_path / f"{engine}.tif"), "--engine", engine, *options])
        shown = capsys.readouterr()
        assert code == 0, shown.err
        done[engine] = json.loads(shown.out)
    error = np.abs(tifffile.imread(tmp_path / "onnx.tif") - tifffile.imread(tmp_path / "torch.tif"))
    assert tolerance(model, "fp32").why_not(error) is None
    settings = done["onnx"]["settings"]
    assert settings["engine"].startswith("onnxruntime ")
    assert settings["truth_test"]["passed"] is True
    assert "truth_test" not in done["torch"]["settings"]


@given(length=st.integers(1, 900), tile_windows=st.integers(1, 60), halo_windows=st.integers(0, 20))
def test_grown_tiles_are_aligned_and_of_at_most_two_sizes(length, tile_windows, halo_windows):
    tile, halo = 4 * tile_windows, 4 * halo_windows
    most = tile + 2 * halo
    sizes = set()
    for part in tiles_of(length, 4, tile, halo):
        wide = grown(part, (most, most), (length, 4))
        read, before = wide.read[0], part.read[0]
        assert wide.own == part.own
        assert read.start % 4 == 0
        # never less than before, never beyond the slice
        assert 0 <= read.start <= before.start < before.stop <= read.stop <= length
        sizes.add(read.stop - read.start)
    least, largest = grown_sides(length, tile + 2 * halo)
    assert least <= min(sizes) <= max(sizes) == largest
    assert len(sizes) == 1 or (len(sizes) == 2 and length % 4 and least == largest - 3)


@pytest.mark.parametrize("size", [(96, 128), (97, 131)], ids=str)
def test_equal_reads_give_what_the_whole_slice_gives(examples, size):
    """An engine of one shape sees only that shape, or one up to 3 px smaller, and the pixels stay the same."""
    image = tifffile.imread(examples / "flyem_fibsem_10nm_48x192x192.tif", key=0)[: size[0], : size[1]]
    engine, seen = TorchEngine(load_model(device="cpu")), set()
    whole = engine.run(image[None, None].astype(np.float32) / 255)[0, 0]

    class Watched:
        name, scale = engine.name, engine.scale

        def run(self, batch):
            seen.add(batch.shape[2:])
            return engine.run(batch)

    grey = Normalisation(0.0, 255.0, "test")
    result = streamed(Watched(), image[None], grey=grey, dtype=np.float32, tile=(16, 16), halo=32, equal_reads=True)
    assert len(seen) == (1 if size == (96, 128) else 4)
    assert max(seen) == (80, 80)
    # halo 32, as docs/tiling.md measured it: 0.1 grey levels
    assert np.abs(result.pixels[0] / 255 - whole).max() <= 0.1 / 255 * 2


def test_padding_a_tile_would_change_the_pixels_at_the_border(examples):
    """Why tiles grow instead: behind zeros that were put there, every convolution writes something else than zeros."""
    slice_0 = tifffile.imread(examples / "flyem_fibsem_10nm_48x192x192.tif", key=0)
    image = slice_0[None, None, :61, :61] / np.float32(255)
    engine = TorchEngine(load_model(device="cpu"))
    exact = engine.run(image)
    padded = engine.run(np.pad(image, ((0, 0), (0, 0), (0, 3), (0, 3))))[..., :183, :183]
    assert np.abs(padded - exact).max() > 1 / 255
    # rows of a batch do not know of each other: they may be made up
    batch = engine.run(np.concatenate([image, np.zeros_like(image)]))
    assert np.abs(batch[:1] - exact).max() <= 1e-6


@pytest.mark.parametrize(
    ("engine", "precision", "words"),
    [("cudnn", None, "`engine` is 'cudnn'"),
     ("onnx", "bf16", "does not compute in bf16"), ("onnx", "int8", "`precision` is 'int8'")],
)  # fmt: skip
def test_engines_and_precisions_that_do_not_exist_are_refused(engine, precision, words):
    with pytest.raises(UsageError, match=words):
        check_engine(engine, precision)

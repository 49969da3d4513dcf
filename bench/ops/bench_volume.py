"""Time from file to file: what `emsr-fast infer` does with a real stack, reading, tiles, network, rounding, writing."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import zarr

from emsr_fast import _backends, load_model
from emsr_fast.infer import job

STACK = Path(__file__).parents[2] / "examples" / "data" / "flyem_fibsem_10nm_48x192x192.tif"
SLICES = 2


def read_tiff(path):
    return tifffile.imread(path)


def read_zarr(path):
    return np.asarray(zarr.open_group(path, mode="r")["0"])


@pytest.mark.parametrize(("suffix", "read"), [(".ome.zarr", read_zarr), (".ome.tif", read_tiff)], ids=["zarr", "tiff"])
def bench_infer(benchmark, tmp_path, suffix, read):
    lr = tifffile.imread(STACK)[:SLICES]
    output = tmp_path / f"out{suffix}"

    def infer():
        return job.infer(
            STACK,
            output,
            model="emsr-x3-small",
            device="cpu",
            slices=f"0:{SLICES}",
            tile=128,
            input_voxel="ignore",
            overwrite=True,
        )

    infer()
    with torch.inference_mode(), _backends.use_backend("reference"):
        hr = load_model("emsr-x3-small", device="cpu")(torch.from_numpy(lr[:, None] / np.float32(255)))
    expected = np.rint(hr[:, 0].numpy().clip(0, 1) * 255)
    # rounding may fall to either side
    assert np.abs(read(output).reshape(expected.shape) - expected).max() <= 1
    benchmark.group = f"infer, {SLICES} slices of {lr.shape[1]}x{lr.shape[2]}"
    benchmark.extra_info.update(
        megapixels=lr.size / 1e6, megabytes=10 * lr.nbytes / 1e6, threads=torch.get_num_threads()
    )
    benchmark.pedantic(infer, rounds=3, iterations=1)

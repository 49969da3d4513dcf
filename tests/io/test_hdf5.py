"""HDF5 in: which dataset, its axes and voxel size, and links that lead elsewhere."""

import h5py
import numpy as np
import pytest
import tifffile

from emsr_fast import VolumeError
from emsr_fast.cli import main
from emsr_fast.io.registry import open_source
from emsr_fast.train.config import Source
from emsr_fast.train.pairs import pairs_of

PIXELS = np.random.default_rng(0).integers(0, 255, (3, 24, 28)).astype(np.uint8)


@pytest.fixture
def file(tmp_path):
    """A file as the paper's data are: one dataset, /raw."""
    path = tmp_path / "HM_25.h5"
    with h5py.File(path, "w") as content:
        raw = content.create_dataset("raw", data=PIXELS, chunks=(1, 8, 8), compression="gzip")
        raw.attrs["element_size_um"] = (0.05, 0.03, 0.03)
    return path


def test_the_only_image_is_found(file):
    for name in (file, f"{file}:/raw", f"{file}:raw"):
        with open_source(name) as source:
            assert source.shape == (3, 24, 28)
            assert source.info.voxel_size_nm == pytest.approx((50, 30, 30))
            assert source.info.chunks == (1, 8, 8)
            np.testing.assert_array_equal(source.read(1, slice(3, 9), slice(0, 28)), PIXELS[1, 3:9])


def test_several_images_must_be_chosen_from(file):
    with h5py.File(file, "a") as content:
        content.create_dataset("other/labels", data=PIXELS[0].astype(np.uint16))
        content.create_dataset("table", data=np.zeros(3))
    with pytest.raises(
        VolumeError, match=r"has 2 images; name one with `key`: raw \(3 x 24 x 28 uint8\), other/labels \("
    ):
        open_source(file)
    with pytest.raises(VolumeError, match="no image 'table' of its own"):
        open_source(f"{file}:/table")
    with open_source(f"{file}:/other/labels") as source:
        assert source.shape == (1, 24, 28)
        assert source.info.axes.startswith("YX")
        assert source.info.voxel_size_nm == (None, None, None)


def test_links_out_of_the_file_are_not_followed(file, tmp_path):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as content:
        content.create_dataset("raw", data=PIXELS)
    (tmp_path / "bytes.raw").write_bytes(PIXELS.tobytes())
    with h5py.File(file, "a") as content:
        content["linked"] = h5py.ExternalLink(str(secret), "/raw")
        content["soft"] = h5py.SoftLink("/raw")
        content.create_dataset("outside", PIXELS.shape, "u1", external=[(str(tmp_path / "bytes.raw"), 0, PIXELS.size)])
        layout = h5py.VirtualLayout(PIXELS.shape, "u1")
        layout[:] = h5py.VirtualSource(str(secret), "raw", PIXELS.shape)
        content.create_virtual_dataset("virtual", layout)
        content["loop"] = content["/"]
    for name, message in (
        ("linked", "link to another file"),
        ("outside", "in other files"),
        ("virtual", "in other files"),
        ("soft", "of its own"),
    ):
        with pytest.raises(VolumeError, match=message):
            open_source(f"{file}:/{name}")
    with open_source(file) as source:
        assert source.info.key == "raw"


@pytest.mark.parametrize("damage", ["cut", "garbage", "missing"])
def test_damaged_files(file, damage):
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(content[: len(content) // 2] if damage == "cut" else content[:8] + bytes(500))
    with pytest.raises(VolumeError, match=r"cannot be read|does not exist"):
        read_all(file)


def read_all(path):
    with open_source(path) as source:
        return [source.read(z, slice(0, 24), slice(0, 28)) for z in range(3)]


def test_infer_and_training_take_a_dataset(file, tmp_path):
    assert main(["infer", f"{file}:/raw", "-o", str(tmp_path / "o.tif")]) == 0
    assert tifffile.imread(tmp_path / "o.tif").shape == (3, 72, 84)
    training, _ = pairs_of(Source(hr=f"{file}:/raw"), 3, 8, tmp_path)
    assert len(training) == 3

"""MATLAB files: v5 as scipy writes them, v7.3 laid out as MATLAB does; the same array in both."""

import h5py
import numpy as np
import pytest
import scipy.io

from emsr_fast.errors import UsageError, VolumeError
from emsr_fast.io.registry import open_source

EVERYTHING = slice(None)
# as MATLAB has it: rows, columns, slices
PIXELS = np.random.default_rng(0).integers(0, 255, (24, 28, 7)).astype(np.uint8)


def v5(path, variables, **options):
    scipy.io.savemat(path, variables, **options)


def v73(path, variables):
    """What ``save -v7.3`` leaves: HDF5 behind 512 bytes of text, axes reversed, classes as attributes."""
    classes = {"float64": "double", "float32": "single", "bool": "logical"}
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in variables.items():
            array = np.asarray(array)
            stored = array.astype(np.uint8) if array.dtype == bool else array
            data = file.create_dataset(name, data=stored.T, chunks=stored.T.shape, compression="gzip")
            data.attrs["MATLAB_class"] = np.bytes_(classes.get(array.dtype.name, array.dtype.name))
        refs = file.create_group("#refs#")
        refs.create_dataset("a", data=np.zeros((9, 9, 9), np.uint8))
        refs["a"].attrs["MATLAB_class"] = np.bytes_("uint8")
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Jan 1 00:00:00 2024 HDF5 schema 1.00 .")


WRITERS = {"v5": v5, "v7.3": v73}


@pytest.mark.parametrize("version", WRITERS)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32, np.float64])
def test_rows_columns_and_slices_are_where_matlab_has_them(tmp_path, version, dtype):
    WRITERS[version](tmp_path / "a.mat", {"stack": PIXELS.astype(dtype), "note": np.array([[1.0]])})
    with open_source(tmp_path / "a.mat") as source:
        assert source.shape == (7, 24, 28)
        assert source.dtype == dtype
        assert source.info.key == "stack"
        assert source.info.axes.startswith("YXZ")
        for z in (0, 6):
            np.testing.assert_array_equal(source.read(z, slice(3, 20), slice(5, 28)), PIXELS[3:20, 5:, z])


@pytest.mark.parametrize("version", WRITERS)
def test_axes_are_named_as_matlab_counts_them(tmp_path, version):
    WRITERS[version](tmp_path / "a.mat", {"stack": PIXELS.transpose(2, 0, 1)})
    with open_source(tmp_path / "a.mat", axes="zyx") as source:
        assert source.shape == (7, 24, 28)
        np.testing.assert_array_equal(source.read(3, EVERYTHING, EVERYTHING), PIXELS[:, :, 3])
    with pytest.raises(UsageError, match="has 3: 7 x 24 x 28"):
        open_source(tmp_path / "a.mat", axes="YX")


@pytest.mark.parametrize("version", WRITERS)
def test_variables_are_to_be_chosen_from(tmp_path, version):
    WRITERS[version](tmp_path / "a.mat", {"a": PIXELS, "b": PIXELS[:, :, 0]})
    with pytest.raises(VolumeError, match=r"2 images; name one with `key`: a \(.*\), b \("):
        open_source(tmp_path / "a.mat")
    with open_source(f"{tmp_path}/a.mat:b") as source:
        assert source.shape == (1, 24, 28)
        np.testing.assert_array_equal(source.read(0, EVERYTHING, EVERYTHING), PIXELS[:, :, 0])
    with pytest.raises(VolumeError, match="no image '#refs#/a'"):
        open_source(tmp_path / "a.mat", key="#refs#/a")


@pytest.mark.parametrize("version", WRITERS)
def test_masks_and_colours_are_told_apart(tmp_path, version):
    WRITERS[version](tmp_path / "a.mat", {"mask": PIXELS > 3})
    with pytest.raises(VolumeError, match="mask"):
        open_source(tmp_path / "a.mat")
    WRITERS[version](tmp_path / "b.mat", {"rgb": PIXELS[:, :, :3]})
    with pytest.raises(VolumeError, match="slices or colours"):
        open_source(tmp_path / "b.mat")
    with open_source(tmp_path / "b.mat", axes="YXZ") as source:
        assert source.shape == (3, 24, 28)


def test_compressed_v7_is_read(tmp_path):
    v5(tmp_path / "a.mat", {"stack": PIXELS, "names": np.array(["a", "b"], object)}, do_compression=True)
    with open_source(tmp_path / "a.mat") as source:
        np.testing.assert_array_equal(source.read(2, EVERYTHING, EVERYTHING), PIXELS[:, :, 2])


def test_complex_pixels_are_refused(tmp_path):
    v5(tmp_path / "a.mat", {"stack": PIXELS + 1j})
    with pytest.raises(VolumeError, match="complex"):
        open_source(tmp_path / "a.mat")


def test_doubles_that_are_stored_as_bytes_are_doubles(tmp_path):
    v5(tmp_path / "a.mat", {"stack": PIXELS})
    raw = bytearray((tmp_path / "a.mat").read_bytes())
    raw[144] = 6  # MATLAB narrows what it saves: the class says double, the numbers are bytes
    (tmp_path / "a.mat").write_bytes(raw)
    with open_source(tmp_path / "a.mat") as source:
        assert source.dtype == np.float64
        np.testing.assert_array_equal(source.read(2, EVERYTHING, EVERYTHING), PIXELS[:, :, 2])


@pytest.mark.parametrize("compressed", [False, True])
def test_damage_is_refused_where_scipy_would_crash_or_guess(tmp_path, compressed):
    v5(tmp_path / "a.mat", {"stack": PIXELS}, do_compression=compressed)
    whole = (tmp_path / "a.mat").read_bytes()
    (tmp_path / "a.mat").write_bytes(whole[:-9])
    with pytest.raises(VolumeError, match="corrupt"):
        open_source(tmp_path / "a.mat")
    raw = bytearray(whole)
    raw[192 if not compressed else len(raw) - 2] ^= 0x80
    if not compressed:
        raw[193] = 0x80  # the type of the numbers
    (tmp_path / "a.mat").write_bytes(raw)
    with pytest.raises(VolumeError, match=r"corrupt|decompress|longer"), open_source(tmp_path / "a.mat") as source:
        source.read(0, EVERYTHING, EVERYTHING)

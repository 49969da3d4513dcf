"""HDF5 as other programs leave it: compressed by plugins, locked, not closed, and Imaris' files."""

import importlib.util
import subprocess
import sys

import h5py
import numpy as np
import pytest

from emsr_fast.cli import main
from emsr_fast.errors import VolumeError
from emsr_fast.io.registry import open_source

EVERYTHING = slice(None)
PIXELS = np.random.default_rng(0).integers(1, 255, (4, 40, 56)).astype(np.uint8)
# as after a crash: nothing is closed
WRITER = """
import os, sys, h5py, numpy
file = h5py.File(sys.argv[1], "w", libver=sys.argv[2])
file.create_dataset("raw", data=numpy.full((2, 8, 8), 7, "u1"), chunks=(1, 8, 8))
if sys.argv[3] == "swmr":
    file.swmr_mode = True
file.flush()
print("written", flush=True)
if sys.argv[4] == "waits":
    sys.stdin.read()
os._exit(0)
"""


def filtered(path, code, mask=0):
    """Write a dataset whose chunks claim to have gone through filter ``code``, unless ``mask`` says otherwise."""
    with h5py.File(path, "w") as file:
        how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        how.set_chunk((1, 40, 56))
        how.set_filter(code, h5py.h5z.FLAG_OPTIONAL, (0, 0))
        space = h5py.h5s.create_simple(PIXELS.shape)
        data = h5py.h5d.create(file.id, b"raw", h5py.h5t.NATIVE_UINT8, space, how)
        for z, image in enumerate(PIXELS):
            data.write_direct_chunk((z, 0, 0), image.tobytes(), mask)
    return path


@pytest.mark.parametrize(
    ("code", "name"),
    [(307, "bzip2"), (32001, "Blosc"), (32004, "LZ4"), (32008, "bitshuffle"), (32015, "Zstandard"), (32026, "Blosc2")],
)
@pytest.mark.parametrize("command", ["inspect", "infer"])
def test_a_missing_plugin_is_named_with_its_package(tmp_path, capsys, monkeypatch, code, name, command):
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda asked: asked < 256)
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    path = filtered(tmp_path / "a.h5", code)
    more = ["-o", str(tmp_path / "out.zarr"), "--input-voxel", "ignore"] if command == "infer" else []
    assert main([command, str(path), *more]) == 3
    said = capsys.readouterr().err
    assert f"filter {code} ({name})" in said
    assert "pip install hdf5plugin" in said
    assert "copy" not in said


@pytest.mark.parametrize(("code", "name"), [(305, "LZO"), (32019, "JPEG"), (60001, "of no known name")])
def test_a_filter_that_hdf5plugin_lacks_is_named(tmp_path, code, name):
    with pytest.raises(VolumeError, match=rf"filter {code} \({name}\).*HDF5_PLUGIN_PATH"):
        open_source(filtered(tmp_path / "a.h5", code))


def test_chunks_that_an_optional_filter_left_out_are_read_without_it(tmp_path):
    with open_source(filtered(tmp_path / "a.h5", 32019, mask=1)) as source:
        np.testing.assert_array_equal(source.read(3, EVERYTHING, EVERYTHING), PIXELS[3])


@pytest.mark.skipif(not importlib.util.find_spec("hdf5plugin"), reason="hdf5plugin is not installed")
def test_hdf5plugin_is_used_where_it_is_installed(tmp_path):
    write = (
        "import sys, h5py, hdf5plugin, numpy; "
        "h5py.File(sys.argv[1], 'w').create_dataset('raw', data=numpy.full((2, 8, 8), 7, 'u1'), chunks=(1, 8, 8), "
        "**hdf5plugin.Blosc())"
    )
    subprocess.run([sys.executable, "-c", write, str(tmp_path / "a.h5")], check=True, timeout=60)
    with open_source(tmp_path / "a.h5") as source:
        assert (source.read(1, EVERYTHING, EVERYTHING) == 7).all()


def written_by(path, libver, swmr, end):
    """Start a program that writes ``path`` and leaves it unclosed; return it once it has written."""
    command = [sys.executable, "-c", WRITER, str(path), libver, swmr, end]
    program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert program.stdout.readline() == "written\n"
    return program


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("swmr", ["swmr", "plain"])
@pytest.mark.parametrize("end", ["waits", "killed"])
def test_a_file_that_another_program_has_open_or_left_open(tmp_path, libver, swmr, end):
    if (libver, swmr) == ("earliest", "swmr"):
        return  # HDF5 has no such files
    path = tmp_path / "live.h5"
    with written_by(path, libver, swmr, end) as program:
        if end == "killed":
            program.wait(60)
        try:
            if (libver, swmr) == ("latest", "plain"):
                with pytest.raises(VolumeError, match=rf"killed.*h5clear -s {path}"):
                    open_source(path)
                return
            with open_source(path) as source:
                assert (source.read(1, EVERYTHING, EVERYTHING) == 7).all()
            said = " ".join(source.info.notes)
            assert ("without one" in said) == (libver == "earliest" and end == "waits")
            assert ("SWMR" in said) == (swmr == "swmr")
        finally:
            program.kill()


def imaris(path, size=(4, 40, 56), channels=1, levels=1, text=lambda value: np.array(list(str(value)), "S1")):
    """Write what Imaris does: padded to whole chunks, sizes and extents as text in attributes."""
    with h5py.File(path, "w") as file:
        for level in range(levels):
            for channel in range(channels):
                group = file.create_group(f"DataSet/ResolutionLevel {level}/TimePoint 0/Channel {channel}")
                padded = np.zeros((8, 64, 64), "u1")
                padded[: size[0], : size[1] >> level, : size[2] >> level] = PIXELS[:, :: 1 << level, :: 1 << level]
                group.create_dataset("Data", data=padded + channel, chunks=(4, 16, 16), compression="gzip")
                group.create_dataset("Histogram", data=np.zeros(256, "u8"))
                for axis, side in zip("ZYX", (size[0], size[1] >> level, size[2] >> level), strict=True):
                    group.attrs[f"ImageSize{axis}"] = text(side)
        info = file.create_group("DataSetInfo/Image")
        for name, value in {"Unit": "um", "ExtMin0": "10", "ExtMax0": "11.344", "ExtMin1": "-1", "ExtMax1": "-0.04",
                            "ExtMin2": "0", "ExtMax2": "0.2"}.items():  # fmt: skip
            info.attrs[name] = text(value)
        file.create_dataset("Thumbnail/Data", data=np.zeros((64, 256), "u1"))
    return path


@pytest.mark.parametrize(
    "text", [lambda value: np.array(list(str(value)), "S1"), str, lambda value: np.bytes_(str(value))]
)
def test_an_imaris_file_has_the_size_and_the_voxels_that_its_attributes_state(tmp_path, text):
    with open_source(imaris(tmp_path / "x.ims", text=text)) as source:
        assert source.shape == (4, 40, 56)
        assert source.info.voxel_size_nm == (50, 24, 24)
        assert source.info.voxel_size_from == "Imaris' extents"
        assert any("padding" in note for note in source.info.notes)
        np.testing.assert_array_equal(source.read(3, slice(8, None), EVERYTHING), PIXELS[3, 8:])


def test_a_coarser_level_of_an_imaris_file_has_larger_voxels(tmp_path):
    path = imaris(tmp_path / "x.ims", levels=2)
    with open_source(path) as source:
        assert source.shape == (4, 40, 56)
        assert any("2 levels: ResolutionLevel 0, ResolutionLevel 1" in note for note in source.info.notes)
    with open_source(f"{path}:/DataSet/ResolutionLevel 1/TimePoint 0/Channel 0/Data") as source:
        assert source.shape == (4, 20, 28)
        assert source.info.voxel_size_nm == (50, 48, 48)


@pytest.mark.parametrize("size", [0, 65, "nan", "many"])
def test_an_imaris_size_that_cannot_be_true_is_refused(tmp_path, size):
    path = imaris(tmp_path / "x.ims")
    with h5py.File(path, "a") as file:
        file["DataSet/ResolutionLevel 0/TimePoint 0/Channel 0"].attrs["ImageSizeX"] = str(size)
    with pytest.raises(VolumeError, match="states the size"):
        open_source(path)

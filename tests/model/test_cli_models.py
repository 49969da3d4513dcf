"""What a model brings into the command line: how it fits windows, how it normalises, what its engine is."""

import json
import os

import numpy as np
import tifffile

from emsr_fast import Emsr, EmsrConfig, ModelCard, save_model
from emsr_fast.cli import main

CONFIG = EmsrConfig(features=16, blocks=1, heads=4)


def stack(path, shape=(1, 20, 30), dtype=np.uint8):
    pixels = np.random.default_rng(0).integers(40, 200, shape).astype(dtype)
    tifffile.imwrite(path, pixels, photometric="minisblack", metadata={"axes": "ZYX"})
    return str(path)


def model(path, window_fit="pad", **fields):
    config = EmsrConfig(features=16, blocks=1, heads=4, window_fit=window_fit)
    save_model(Emsr(config, ModelCard.for_config(config, **fields)), path)
    return str(path)


def error_of(capfd, *arguments):
    code = main([*arguments])
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error:")]
    return code, lines


def test_a_tile_too_thin_to_resize_is_refused_before_any_work(tmp_path, capfd):
    released = model(tmp_path / "m.safetensors", "resize")
    wide = stack(tmp_path / "in.tif", (1, 20, 257))
    arguments = ("infer", wide, "-o", str(tmp_path / "o.tif"), "--model", released, "--tile", "256", "--halo", "0")
    code, (line,) = error_of(capfd, *arguments)
    assert code == 2
    assert "20x1 px of 20x257" in line
    assert "--window-fit pad" in line
    assert main([*arguments, "--window-fit", "pad"]) == 0
    assert tifffile.imread(tmp_path / "o.tif").shape == (60, 771)


def test_an_unknown_window_fit_is_a_usage_error(tmp_path, capfd):
    code, (line,) = error_of(
        capfd, "infer", stack(tmp_path / "in.tif"), "-o", str(tmp_path / "o.tif"), "--window-fit", "x"
    )
    assert code == 2
    assert "give pad or resize" in line


def test_the_cards_normalisation_is_used(tmp_path, capfd):
    by_percentile = model(tmp_path / "m.safetensors", normalisation="percentile")
    for name, origin in ((by_percentile, "percentiles"), ("emsr-x3-small", "dtype range")):
        arguments = ("infer", stack(tmp_path / "in.tif"), "-o", str(tmp_path / "o.tif"), "--overwrite", "--json")
        assert main([*arguments, "--model", name]) == 0
        settings = json.loads(capfd.readouterr().out)["settings"]
        assert settings["normalisation"]["origin"].startswith(origin)
        assert "kernels: " in settings["engine"]


def test_file_names_of_any_bytes_and_length(tmp_path):
    odd = os.fsencode(tmp_path) + b"/\xb5m slices\n.tif"
    stack(tmp_path / "in.tif")
    os.rename(tmp_path / "in.tif", odd)
    # an \N{MICRO SIGN} of an old microscope computer, and a name that leaves no room for a suffix of ours
    for name in (os.fsencode(tmp_path) + b"/\xb5.tif", tmp_path / ("ä" * 120 + ".tif"), tmp_path / "x.zarr"):
        assert main(["infer", os.fsdecode(odd), "-o", os.fsdecode(name)]) == 0
        assert os.path.exists(name)
    assert not [name for name in os.listdir(os.fsencode(tmp_path)) if b"partial" in name]


def test_a_name_too_long_for_any_file_is_one_line(tmp_path, capfd):
    code, lines = error_of(capfd, "infer", stack(tmp_path / "in.tif"), "-o", str(tmp_path / ("a" * 300 + ".tif")))
    assert code == 3
    assert len(lines) == 1


def test_links_in_a_circle_are_one_line(tmp_path, capfd):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert error_of(capfd, "infer", str(tmp_path / "loop"), "-o", str(tmp_path / "o.tif"))[0] == 3
    code, lines = error_of(capfd, "infer", stack(tmp_path / "in.tif"), "-o", str(tmp_path / "loop" / "o.tif"))
    assert code == 3
    assert len(lines) == 1


def test_values_beyond_float32_are_refused(tmp_path, capfd):
    pixels = np.random.default_rng(0).random((1, 16, 16)) * 1e300
    tifffile.imwrite(tmp_path / "in.tif", pixels, photometric="minisblack")
    code, (line,) = error_of(
        capfd, "infer", str(tmp_path / "in.tif"), "-o", str(tmp_path / "o.tif"), "--range", "0:1e300"
    )
    assert code == 3
    assert "beyond float32" in line


def test_a_stack_whose_writer_calls_its_slices_channels(tmp_path, capfd):
    pixels = np.random.default_rng(0).integers(0, 255, (12, 16, 16)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "imagej.tif", pixels, imagej=True, metadata={"axes": "CYX"})
    assert main(["inspect", str(tmp_path / "imagej.tif")]) == 0
    assert "the channel axis is read as z" in capfd.readouterr().out
    tifffile.imwrite(tmp_path / "three.tif", pixels[:3], imagej=True, metadata={"axes": "CYX"})
    code, (line,) = error_of(capfd, "inspect", str(tmp_path / "three.tif"))
    assert code == 3
    assert "if they are slices, name that axis Z with --axes" in line


def test_the_full_list_has_short_lines_and_says_nothing_twice(capsys):
    assert main(["models", "--full"]) == 0
    text = capsys.readouterr().out
    for line in text.splitlines():
        # a sentence may be longer; numbers are not strung together
        assert line.count(";") <= 8, line
        assert len(line) <= 150, line
    data = [line for line in text.split("\n\n")[0].splitlines() if "synthetic:" in line]
    assert data
    assert len(data) == len(set(data))


def test_the_table_says_what_speaks_against_the_others(capsys):
    assert main(["models"]) == 0
    assert "worse than emsr-x3-small, at six times its cost" in capsys.readouterr().out

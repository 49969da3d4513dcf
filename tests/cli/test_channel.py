"""``--channel``: every command that reads a volume reads the detector named, and says so where there is none."""

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from emsr_fast.cli import main
from emsr_fast.errors import UsageError
from emsr_fast.io.registry import ChannelOf
from emsr_fast.train.config import Source
from emsr_fast.train.pairs import pairs_of

STACKS = np.random.default_rng(0).integers(1, 255, (2, 2, 24, 28)).astype(np.uint8)  # C, Z, Y, X


@pytest.fixture
def two(tmp_path):
    """A file with two detectors; the second of them is by itself in alone.tif."""
    tifffile.imwrite(tmp_path / "two.tif", STACKS.transpose(1, 0, 2, 3), imagej=True, metadata={"axes": "ZCYX"})
    tifffile.imwrite(tmp_path / "alone.tif", STACKS[1], photometric="minisblack")
    return tmp_path / "two.tif"


def test_inspect_and_infer_read_the_channel_named(tmp_path, two, capsys):
    assert main(["inspect", str(two), "--channel", "1"]) == 0
    assert "channel 1 of 0 to 1" in capsys.readouterr().out
    outputs = []
    for name, more in (("alone", []), ("two", ["--channel", "1"])):
        out = tmp_path / f"{name}.zarr"
        assert main(["infer", str(tmp_path / f"{name}.tif"), "-o", str(out), "--input-voxel", "ignore", *more]) == 0
        outputs.append(zarr.open(out, mode="r"))
    np.testing.assert_array_equal(outputs[0]["0"][:], outputs[1]["0"][:])
    assert '"channel": 1' in (tmp_path / "two.zarr" / "zarr.json").read_text()
    # what was made of it, with the volume it was made from
    report = ["evaluate", str(tmp_path / "two.zarr"), "-o", str(tmp_path / "report"), "--samples", "1"]
    assert main([*report, "--lr", str(two), "--channel", "1"]) == 0


def test_preview_reads_the_channel_named(tmp_path, two):
    pictures = []
    for name, more in (("alone", []), ("two", ["--channel", "1"]), ("two", ["--channel", "0"])):
        out = tmp_path / "shown.png"
        shown = ["preview", str(tmp_path / f"{name}.tif"), "-o", str(out), "--no-trust", "--overwrite"]
        assert main([*shown, "--input-voxel", "ignore", *more]) == 0
        # below the title, which names the file
        pictures.append(np.asarray(Image.open(out))[-24:])
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert (pictures[0] != pictures[2]).any()


@pytest.mark.parametrize(
    "command",
    [
        ["inspect", "two.tif"],
        ["infer", "two.tif", "-o", "out.zarr"],
        ["preview", "two.tif", "-o", "out.png"],
        ["evaluate", "alone.tif", "-o", "out", "--reference", "two.tif"],
        ["pair", "two.tif", "two.tif", "-o", "out", "--lr-voxel", "30,30,30", "--hr-voxel", "30,10,10"],
    ],
)
def test_each_command_asks_for_a_channel_and_refuses_one_that_is_not_there(two, monkeypatch, capsys, command):
    monkeypatch.chdir(two.parent)
    assert main(command) == 3
    assert "has 2 channels; name one with --channel, 0 to 1" in capsys.readouterr().err
    assert main([*command, "--channel", "2"]) == 2
    assert "channel 2: two.tif has 2, 0 to 1" in capsys.readouterr().err
    for name in ("inspect", "infer", "preview"):
        if command[0] == name:
            assert main([name, "alone.tif", *command[2:], "--channel", "0"]) == 2
            assert "has no axis C" in capsys.readouterr().err


def test_training_draws_from_the_channel_named(tmp_path, two):
    def drawn(**source):
        training, _ = pairs_of(Source(**source), 3, 4, tmp_path)
        return training[0].origin.whole(1)

    np.testing.assert_array_equal(drawn(hr=two, channel=1), STACKS[1, 1])
    with pytest.raises(UsageError, match="has no axis C"):
        drawn(hr=tmp_path / "alone.tif", channel=1)


def test_of_several_volumes_one_at_least_has_channels(tmp_path, two):
    channels = ChannelOf(1)
    channels.open(tmp_path / "alone.tif").close()
    with pytest.raises(UsageError, match="has no axis C"):
        channels.check_used()
    with channels.open(two) as source:
        np.testing.assert_array_equal(source.read(0, slice(None), slice(None)), STACKS[1, 0])
    channels.check_used()

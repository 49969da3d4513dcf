"""Pixels far outside the grey range: they change a spot no larger than a cubic would, and are counted and said."""

import dataclasses
import json

import numpy as np
import pytest
import tifffile
import torch
import zarr

from emsr_fast import Emsr, EmsrConfig, ModelCard, load_model, save_model, super_resolve
from emsr_fast.engine import TorchEngine
from emsr_fast.engine.tile_pipeline import TilePipeline
from emsr_fast.errors import CheckpointError, PartialError, VolumeError
from emsr_fast.infer.job import infer
from emsr_fast.io.intensity import Normalisation, for_model, measure
from emsr_fast.io.registry import open_source
from emsr_fast.trust.maps import Trust
from streaming import streamed

GREY = Normalisation(100.0, 300.0, "given")  # bounds -100 and 500
NO_DATA = -3.4e38


@pytest.fixture
def slices():
    """Three smooth slices of 80 x 88 px, 100 .. 300."""
    rows, cols = np.mgrid[:80, :88]
    return np.stack([200 + 99 * np.sin(rows / 5 + z) * np.cos(cols / 7) for z in range(3)])


def file_of(folder, pixels, dtype, name="in.tif"):
    tifffile.imwrite(folder / name, pixels.astype(dtype), photometric="minisblack")
    return folder / name


def predicted(engine, source, trust=None, grey=GREY, keep_going=True):
    """Return the output of ``source`` in small tiles with halos, its maps, and what was done."""
    options = {"tile": (32, 32), "halo": 16, "block": (2, 64, 32), "keep_going": keep_going}
    done = streamed(engine, source, grey=grey, trust=trust, **options)
    return done.pixels, done.maps, done.statistics


@pytest.mark.parametrize(("dtype", "value"), [("u2", 4095), ("u2", 65535), ("i2", -32768), ("f4", 1e6), ("f4", 1e9)])
def test_a_hot_pixel_changes_a_spot_of_some_pixels(tmp_path, slices, dtype, value):
    slices = slices[:1]
    hot = slices.copy()
    hot[0, 40, 44] = value
    engine = TorchEngine(load_model(device="cpu"))
    with open_source(file_of(tmp_path, slices, dtype, "clean.tif")) as clean:
        wanted, _, none = predicted(engine, clean)
    with open_source(file_of(tmp_path, hot, dtype)) as source:
        found, _, one = predicted(engine, source)
    changed = np.argwhere(np.abs(found.astype(float) - wanted) > 20)
    # three HR pixels for the pixel itself, and the reach of a cubic around it
    assert len(changed) <= 100
    assert (np.abs(changed - (0, 3 * 40 + 1, 3 * 44 + 1)) <= (0, 9, 9)).all()
    assert (none.bounded, one.bounded) == (0, 1)


def test_pixels_of_ordinary_images_are_not_touched(slices):
    free = dataclasses.replace(GREY, bounds=(-np.inf, np.inf))
    values = np.concatenate([slices.ravel(), [-100.0, 500.0]]).astype("f4")
    assert GREY.to_model(values).tobytes() == free.to_model(values).tobytes()
    assert GREY.count_beyond(values) == 0
    outside = np.array([-101, 501, -1e9, 1e9], "f4")
    assert GREY.to_model(outside).tolist() == [-1, 2, -1, 2]
    assert GREY.count_beyond(outside) == 4


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "f4"])
def test_what_is_counted_is_what_the_network_is_given_another_value_for(dtype):
    ends = (-2000.0, 2000.0) if dtype == "f4" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    values = np.linspace(*ends, 70000).astype(dtype)
    grey = Normalisation(30.0, 50.0, "given")
    free = dataclasses.replace(grey, bounds=(-np.inf, np.inf))
    assert grey.count_beyond(values) == np.count_nonzero(grey.to_model(values) != free.to_model(values)) > 0


def test_bytes_converted_on_the_device_are_bounded_alike(tmp_path, slices):
    torch.manual_seed(0)
    model = Emsr(EmsrConfig(features=16, blocks=1, heads=4))
    plain, device = TorchEngine(model), TorchEngine(model)
    device._pipeline = TilePipeline(device.model, torch.device("cpu"))
    narrow = Normalisation(100.0, 120.0, "given")
    with open_source(file_of(tmp_path, slices / 2, "u1")) as source:
        (here, _, counted), (there, _, counted_there) = (predicted(e, source, grey=narrow) for e in (plain, device))
    assert here.tobytes() == there.tobytes()
    assert counted.bounded == counted_there.bounded > 0


class Noting:
    """Repeats pixels, and keeps the least and most that it was given."""

    name, scale = "noting", 3

    def __init__(self):
        self.least, self.most = np.inf, -np.inf

    def run(self, batch):
        self.least, self.most = min(self.least, batch.min()), max(self.most, batch.max())
        return batch.repeat(3, axis=2).repeat(3, axis=3)


def test_the_runs_for_trust_keep_to_the_bounds_though_noise_is_added(tmp_path, slices):
    slices[0, 30:34, 30:34], slices[1, 3, 5] = 9000, -9000
    engine = Noting()
    with open_source(file_of(tmp_path, slices, "f4")) as source:
        _, maps, _ = predicted(engine, source, trust=Trust(gain=0.01, offset=0.01, calibration=None))
    assert (engine.least, engine.most) == (-1, 2)
    assert all(np.isfinite(values).all() for block in maps for values in block.values())


def test_halos_do_not_count_a_pixel_again(tmp_path, slices):
    # on both sides of the borders of tiles (32) and blocks (64, 32), and at the ends
    slices[0, [0, 31, 32, 63, 64, 79], [0, 31, 32, 63, 64, 87]] = 5000
    with open_source(file_of(tmp_path, slices, "u2")) as source:
        _, _, statistics = predicted(Noting(), source)
    assert statistics.bounded == 6


def hot_stack(folder):
    """A stack of 12 blocks with 30 pixels beyond 0..255 and -255..510, near the borders of blocks too; its path."""
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 64)).astype("i2")
    places = np.random.default_rng(1).permutation(48 * 64 * 64)[:26]
    pixels.ravel()[places] = 5000
    pixels[3, 31:33, 31:33] = -400
    return file_of(folder, pixels, "i2", "hot.tif")


HOT = {"tile": 32, "halo": 8, "max_memory": "6MB", "input_voxel": "ignore", "intensity_range": "0:255"}


def bounded_in(output):
    return zarr.open_group(output, mode="r").attrs["emsr_fast"]["bounded_pixels"]


def test_every_bounded_pixel_is_counted_once_and_said(tmp_path, use_nearest):
    use_nearest()
    lines = []
    done = infer(hot_stack(tmp_path), tmp_path / "a.zarr", **HOT, say=lines.append)
    assert done["bounded_pixels"] == bounded_in(tmp_path / "a.zarr") == 30
    assert lines[-1].startswith("note    30 input pixels below -255 or above 510, set to the nearer")
    assert done["settings"]["normalisation"]["bounds"] == [-1, 2]
    infer(hot_stack(tmp_path), tmp_path / "a.tif", **HOT)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert '<M K="bounded_pixels">30</M>' in file.ome_metadata


def test_an_ordinary_volume_has_none_and_no_note(stack, tmp_path, use_nearest):
    use_nearest()
    lines = []
    done = infer(stack, tmp_path / "a.zarr", slices=":1", input_voxel="ignore", say=lines.append)
    assert done["bounded_pixels"] == bounded_in(tmp_path / "a.zarr") == 0
    assert not any("set to the nearer" in line for line in lines)


@pytest.mark.parametrize("tiles", [1, 50, 150])
def test_a_run_that_goes_on_counts_each_once(tmp_path, use_nearest, tiles):
    engine, file = use_nearest(), hot_stack(tmp_path)
    run = engine.run

    def stop(batch):
        if len(engine.shapes) >= tiles:
            raise KeyboardInterrupt
        return run(batch)

    engine.run = stop
    with pytest.raises(KeyboardInterrupt):
        infer(file, tmp_path / "a.zarr", **HOT)
    engine.run = run
    done = infer(file, tmp_path / "a.zarr", **HOT)
    assert done["bounded_pixels"] == bounded_in(tmp_path / "a.zarr") == 30


def test_shares_of_several_processes_add_up(tmp_path, use_nearest):
    use_nearest()
    file = hot_stack(tmp_path)
    counts = [infer(file, tmp_path / "a.zarr", **HOT, shard=f"{i}/3")["bounded_pixels"] for i in (2, 3, 1)]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1] == bounded_in(tmp_path / "a.zarr") == 30


def test_a_count_survives_a_kill_after_the_output_got_its_name(tmp_path, use_nearest, monkeypatch):
    use_nearest()
    file = hot_stack(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("emsr_fast.infer.workfolder.WorkFolder.remove", lambda self: None)
        infer(file, tmp_path / "a.zarr", **HOT)
    for mark in (tmp_path / "a.zarr.partial" / "bounded").iterdir():
        mark.unlink()
    assert infer(file, tmp_path / "a.zarr", **HOT)["bounded_pixels"] == 30
    assert not (tmp_path / "a.zarr.partial").exists()


def test_no_data_fails_its_slice_and_may_be_mended(tmp_path, slices, use_nearest):
    use_nearest()
    marked = slices.copy()
    marked[1, 3, 5:9] = NO_DATA
    file = file_of(tmp_path, marked, "f4")
    message = r"slice 1: slice 1 of .*in\.tif has 4 pixels of absent data, the first -3\.4e\+38 at row 3, col"
    with pytest.raises(PartialError, match=message) as raised:
        infer(file, tmp_path / "a.zarr", input_voxel="ignore")
    assert raised.value.exit_code == 4
    assert list(json.loads((tmp_path / "a.zarr.partial" / "failed.json").read_text())["slices"]) == ["1"]
    file_of(tmp_path, slices, "f4")
    done = infer(file, tmp_path / "a.zarr", input_voxel="ignore")
    assert (done["complete"], done["bounded_pixels"]) == (True, 0)


def test_without_going_on_the_first_no_data_pixel_is_named(tmp_path, slices):
    slices[2, 50, 60] = 1e20
    with (
        open_source(file_of(tmp_path, slices, "f4")) as source,
        pytest.raises(VolumeError, match=r"slice 2 .* 1 pixel .* 1e\+20 at row 50, column 60"),
    ):
        predicted(Noting(), source, keep_going=False)


@pytest.mark.parametrize("mark", [NO_DATA, 9.96921e36, 1e20, -1e30])
def test_marks_of_absence_do_not_move_the_measured_range(tmp_path, slices, mark):
    marked = slices.copy()
    marked[:, :50] = mark
    with open_source(file_of(tmp_path, marked, "f4")) as source:
        found = measure(source)
    with open_source(file_of(tmp_path, slices[:, 50:], "f4")) as source:
        wanted = measure(source)
    assert (found.low, found.high) == (wanted.low, wanted.high)
    with (
        open_source(file_of(tmp_path, np.full((1, 9, 9), mark), "f4")) as source,
        pytest.raises(VolumeError, match=r"no finite pixel below 1e\+18 .* `intensity_range=LO:HI`"),
    ):
        measure(source)


def test_arrays_are_bounded_as_files_are(tmp_path, slices):
    slices[0, 30, 30], slices[1, 40, 50] = 5000, -3000
    infer(file_of(tmp_path, slices, "i2"), tmp_path / "a.tif")
    with pytest.warns(UserWarning, match=r"^2 input pixels below"):
        found = super_resolve(slices.astype("i2"))
    assert found.tobytes() == tifffile.imread(tmp_path / "a.tif").tobytes()
    slices[2, 7, 9] = NO_DATA
    with pytest.raises(VolumeError, match=r"slice 2 of the array .* absent data, .* at row 7, column 9"):
        super_resolve(slices.astype("f4"))


def test_the_bounds_are_those_of_the_models_card(tmp_path, slices):
    torch.manual_seed(0)
    config = EmsrConfig(features=16, blocks=1, heads=4)
    file = file_of(tmp_path, slices, "f4")
    for name, fields in (("wide", {"input_bounds": (-5.0, 7.0)}), ("silent", {})):
        save_model(Emsr(config, ModelCard.for_config(config, **fields)), tmp_path / f"{name}.safetensors")
    wide, silent = (load_model(tmp_path / f"{name}.safetensors", device="cpu").card for name in ("wide", "silent"))
    assert (wide.input_bounds, silent.input_bounds) == ((-5, 7), (-1, 2))
    with open_source(file) as source:
        assert for_model(source, wide).bounds == (-5, 7)
        assert for_model(source, wide, GREY) == dataclasses.replace(GREY, bounds=(-5, 7))
    # a card that was written before there were bounds
    assert ModelCard.model_validate({"architecture": vars(config)}).input_bounds == (-1, 2)
    assert "input bounds" in wide.describe()
    done = infer(file, tmp_path / "a.zarr", model=tmp_path / "wide.safetensors", intensity_range="190:200", slices=":1")
    assert done["settings"]["normalisation"]["bounds"] == [-5, 7]
    assert done["bounded_pixels"] == np.count_nonzero((slices[0].astype("f4") < 140) | (slices[0].astype("f4") > 260))


@pytest.mark.parametrize("bounds", [[0.5, 2], [-1, 0.9], [float("-inf"), 2], [2, -1]])
def test_bounds_within_the_range_itself_are_refused(bounds):
    with pytest.raises(ValueError, match="input_bounds must reach from 0 or less to 1 or more"):
        ModelCard(architecture={}, input_bounds=bounds)


def test_a_file_with_such_bounds_is_a_model_file_with_a_wrong_card(tmp_path):
    torch.manual_seed(0)
    model = Emsr(EmsrConfig(features=16, blocks=1, heads=4))
    model.card = model.card.model_copy(update={"input_bounds": (0.5, 2.0)})
    save_model(model, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="wrong at 'input_bounds'"):
        load_model(tmp_path / "a.safetensors", device="cpu")


def test_of_a_resampled_input_the_resampled_pixels_are_counted(tmp_path, slices):
    slices[0, 30:32, 30:32] = 5000
    lines = []
    infer(file_of(tmp_path, slices, "u2"), tmp_path / "a.zarr", input_voxel="6.9", say=lines.append)
    (told,) = [line for line in lines if "resampled pixel" in line]
    assert told.startswith("note    1 resampled pixel below")


def test_a_request_of_which_nothing_can_be_done_is_bad_input_and_leaves_nothing(tmp_path, slices):
    slices[:, 3, 3] = NO_DATA
    with pytest.raises(VolumeError, match="has 1 pixel of absent data") as raised:
        infer(file_of(tmp_path, slices, "f4"), tmp_path / "a.zarr")
    assert raised.value.exit_code == 3
    assert [path.name for path in tmp_path.iterdir()] == ["in.tif"]

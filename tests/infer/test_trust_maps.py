"""Maps of trust of whole volumes: beside an unchanged output, exact over tilings, resumable, failing well."""

import json

import numpy as np
import pytest
import tifffile
import zarr

from emsr_fast import load_model
from emsr_fast.errors import PartialError, UsageError, VolumeError
from emsr_fast.infer import trust_maps
from emsr_fast.infer.job import infer
from emsr_fast.infer.verify import verify
from emsr_fast.io.registry import open_source

MAPS = ("error", "disagreement", "residual")
# five blocks of a slice; begins and ends nowhere in particular
MANY_BLOCKS = {
    "roi": "10,3,5:15,61,70",
    "tile": 16,
    "halo": 8,
    "trust": True,
    "max_memory": "6MB",
    "input_voxel": "ignore",
}


@pytest.fixture
def stopped_after(use_nearest):
    """Run the given number of tiles, then break down."""

    def run(tiles, *arguments, **options):
        engine = use_nearest()
        work = engine.run

        def breaking(batch):
            if len(engine.shapes) >= tiles:
                raise KeyboardInterrupt
            return work(batch)

        engine.run = breaking
        with pytest.raises(KeyboardInterrupt):
            infer(*arguments, **options)

    return run


def bytes_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def array(path, name):
    return zarr.open_group(path / "trust" / name, mode="r")["0"]


def test_the_output_itself_stays_what_it_was_and_the_maps_lie_in_it(stack, tmp_path):
    region = {"roi": "3,5,9:5,50,62", "input_voxel": "ignore"}
    plain, done = (infer(stack, tmp_path / f"{t}.zarr", **region, trust=t) for t in (False, True))
    without, with_maps = (zarr.open_group(tmp_path / f"{t}.zarr", mode="r")["0"] for t in (False, True))
    np.testing.assert_array_equal(with_maps[:], without[:])
    assert plain["trust"] == {}
    assert sorted(done["trust"]) == sorted(MAPS)
    for name in MAPS:
        with open_source(done["trust"][name]) as found, open_source(tmp_path / "True.zarr") as result:
            assert found.shape == ((2, 45, 53) if name == "residual" else result.shape)
            factor = 3 if name == "residual" else 1
            assert found.info.voxel_size_nm == (None, *(factor * s for s in result.info.voxel_size_nm[1:]))
            pixels = found.read(0, slice(0, found.shape[1]), slice(0, found.shape[2]))
            assert pixels.dtype == np.float32
            assert np.isfinite(pixels).all()
            if name != "residual":
                assert 0 < pixels.min() < pixels.max() < 100  # grey levels of the output, not of [0, 1]
    assert verify(tmp_path / "True.zarr") == verify(tmp_path / "True.zarr") | {"complete": True, "checked": 4}


@pytest.mark.parametrize("sides", [(61, 65), (64, 68)], ids=str)
def test_maps_are_those_of_the_whole_slice_however_it_is_tiled(stack, tmp_path, sides):
    """With a halo that holds the receptive field; float32 rounding apart, and the map's own eight bits."""
    image = tifffile.imread(stack)[:4, : sides[0], : sides[1]]
    tifffile.imwrite(tmp_path / "in.tif", image, photometric="minisblack")
    for name, tile in (("whole", 68), ("tiled", 24)):
        infer(tmp_path / "in.tif", tmp_path / f"{name}.zarr", tile=tile, halo=112, trust=True, slices="1:2")
    for name in MAPS:
        whole, tiled = (array(tmp_path / f"{run}.zarr", name)[:] for run in ("whole", "tiled"))
        np.testing.assert_allclose(tiled, whole, rtol=2**-7, atol=2e-3)


def test_a_stopped_run_goes_on_to_the_same_bytes(stack, tmp_path, use_nearest, stopped_after):
    use_nearest()
    whole = infer(stack, tmp_path / "whole.zarr", **MANY_BLOCKS)
    stopped_after(600, stack, tmp_path / "a.zarr", **MANY_BLOCKS)
    use_nearest()
    with pytest.raises(VolumeError, match=r"settings\.trust was True, is False"):
        infer(stack, tmp_path / "a.zarr", **MANY_BLOCKS | {"trust": False})
    done = infer(stack, tmp_path / "a.zarr", **MANY_BLOCKS)
    assert done["blocks_done_before"] >= 1
    assert done["blocks"] + done["blocks_done_before"] == whole["blocks"] == 5
    ours, again = (bytes_of(tmp_path / name) for name in ("whole.zarr", "a.zarr"))
    different = {name for name in ours if ours[name] != again[name]}
    # the name of the output is in its metadata
    assert ours.keys() == again.keys()
    assert different <= {"zarr.json"}


def test_shares_of_several_processes_give_the_same_maps(stack, tmp_path, use_nearest):
    use_nearest()
    infer(stack, tmp_path / "whole.zarr", **MANY_BLOCKS)
    done = [infer(stack, tmp_path / "a.zarr", **MANY_BLOCKS, shard=f"{i}/3") for i in (3, 1, 2)]
    assert [d["complete"] for d in done] == [False, False, True]
    for name in MAPS:
        np.testing.assert_array_equal(array(tmp_path / "a.zarr", name)[:], array(tmp_path / "whole.zarr", name)[:])


def test_a_tiff_gets_its_maps_beside_it(stack, tmp_path, use_nearest):
    use_nearest()
    done = infer(stack, tmp_path / "x3.ome.tif", **MANY_BLOCKS)
    names = [f"x3.trust-{name}.ome.tif" for name in sorted(MAPS)]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["x3.ome.tif", *names])
    infer(stack, tmp_path / "x3.zarr", **MANY_BLOCKS)
    for name in MAPS:
        assert done["trust"][name] == str(tmp_path / f"x3.trust-{name}.ome.tif")
        np.testing.assert_array_equal(tifffile.imread(done["trust"][name]), array(tmp_path / "x3.zarr", name)[:])


def test_a_map_of_an_earlier_run_is_not_overwritten_unasked(stack, tmp_path, use_nearest):
    use_nearest()
    old = tmp_path / "x3.trust-error.tif"
    tifffile.imwrite(old, np.zeros((3, 3), np.float32))
    before = old.read_bytes()
    with pytest.raises(VolumeError, match=r"x3\.trust-error\.tif exists; .* `overwrite=True`"):
        infer(stack, tmp_path / "x3.tif", **MANY_BLOCKS)
    assert [p.name for p in tmp_path.iterdir()] == [old.name]
    assert old.read_bytes() == before
    infer(stack, tmp_path / "x3.tif", **MANY_BLOCKS, overwrite=True)
    assert tifffile.imread(old).shape == (5, 174, 195)


def test_a_slice_that_failed_has_no_trust_rather_than_all_of_it(tmp_path, use_nearest):
    pixels = np.random.default_rng(0).random((5, 64, 64), dtype=np.float32)
    pixels[1, 5, 5] = np.nan
    tifffile.imwrite(tmp_path / "in.tif", pixels, photometric="minisblack")
    use_nearest()
    output = tmp_path / "a.zarr"
    with pytest.raises(PartialError):
        infer(tmp_path / "in.tif", output, intensity_range="0:1", trust=True)
    infer(tmp_path / "in.tif", output, finish=True)
    for name in MAPS:
        assert np.isnan(array(output, name)[:]).all(axis=(1, 2)).tolist() == [False, True, False, False, False]
    assert any("values that are not finite" in problem for problem in verify(output)["problems"])


def test_a_model_without_calibration_gets_no_expected_error_and_says_so(stack, tmp_path, use_nearest, monkeypatch):
    use_nearest()
    monkeypatch.setattr(trust_maps, "calibration_path", lambda model: tmp_path / "none.trust.json")
    lines = []
    done = infer(stack, tmp_path / "a.zarr", **MANY_BLOCKS, say=lines.append)
    assert sorted(done["trust"]) == ["disagreement", "residual"]
    assert any("this model is not calibrated" in line for line in lines)
    assert any("9 runs of the network" in line for line in lines)


def test_an_input_too_small_to_measure_its_noise_is_refused(stack, tmp_path, use_nearest):
    use_nearest()
    tifffile.imwrite(tmp_path / "in.tif", tifffile.imread(stack)[0, :20, :20], photometric="minisblack")
    with pytest.raises(VolumeError, match=r"has 4 blocks of 8 px that are not clipped; give larger images"):
        infer(tmp_path / "in.tif", tmp_path / "a.zarr", trust=True)
    assert [p.name for p in tmp_path.iterdir()] == ["in.tif"]


def test_a_dry_run_counts_the_runs_and_the_maps(stack, tmp_path, use_nearest):
    use_nearest(seconds=0.01)
    options = {"dry_run": True, "tile": 32, "input_voxel": "ignore"}
    plain, found = (infer(stack, tmp_path / "a.zarr", **options, trust=t) for t in (False, True))
    assert found["seconds"] > 4 * plain["seconds"]
    assert found["bytes_uncompressed"] == 9 * plain["bytes_uncompressed"]


def test_what_the_maps_were_made_with_is_written_into_them(stack, tmp_path, use_nearest):
    use_nearest()
    infer(stack, tmp_path / "a.zarr", **MANY_BLOCKS)
    own = zarr.open_group(tmp_path / "a.zarr" / "trust" / "error", mode="r").attrs["emsr_fast"]
    assert own["map"] == "error"
    # of 255 grey levels, squared: the noise of this stack is 3.7
    assert own["trust"]["offset"] * 255**2 == pytest.approx(3.73**2, rel=0.02)
    sha256 = own["trust"]["calibration"]["model_sha256"]
    assert sha256 == own["model_sha256"]
    beside = json.loads((trust_maps.calibration_path(model_file())).read_text())
    assert beside["model_sha256"] == sha256


def model_file():
    from emsr_fast.model.zoo import DEFAULT_MODEL, model_path

    load_model(DEFAULT_MODEL, device="cpu")
    return model_path(DEFAULT_MODEL)


def test_an_engine_that_takes_fixed_sides_is_refused(stack, tmp_path):
    with pytest.raises(UsageError, match="`trust` turns tiles"):
        infer(stack, tmp_path / "a.zarr", **MANY_BLOCKS, engine="trt")

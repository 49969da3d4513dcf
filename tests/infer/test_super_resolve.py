"""emsr_fast.super_resolve: the pixels of ``emsr-fast infer``, for arrays."""

import numpy as np
import pytest
import tifffile
import zarr

import emsr_fast
from emsr_fast.cli import main
from emsr_fast.errors import BackendError, CheckpointError, UsageError, VolumeError
from sweeps import quick_of


@pytest.fixture
def pixels(stack):
    """Return part of a real stack, in sides that are no multiples of 4, as grey values of a dtype."""
    part = tifffile.imread(stack)[3:5, 5:66, 7:56]

    def of(dtype):
        if dtype == "uint8":
            return part
        fine = part.astype(np.float64) + np.random.default_rng(0).random(part.shape)
        # 16 bits around a large offset; floats around zero
        return (900 + 37 * fine).astype(np.uint16) if dtype == "uint16" else ((fine - 128) / 3).astype(dtype)

    return of


def inferred(array, folder, *options, suffix=".tif"):
    """What the real command writes for a file with these pixels."""
    tifffile.imwrite(folder / "in.tif", array, photometric="minisblack")
    output = folder / f"out{suffix}"
    assert main(["infer", str(folder / "in.tif"), "-o", str(output), *options]) == 0
    written = tifffile.imread(output) if suffix == ".tif" else zarr.open_group(output, mode="r")["0"][:]
    return written.reshape(-1, *written.shape[-2:])


@pytest.mark.parametrize("dtype", quick_of(["uint8", "uint16", "float32"], ["uint16"]))
@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ([], {}),
        (["--tile", "16"], {"tile": 16}),
        (["--range", "20:210.5"], {"intensity_range": (20, 210.5)}),
        (["--range", "dtype"], {"intensity_range": "dtype"}),
    ],
)
def test_an_array_becomes_what_infer_writes_bit_for_bit(pixels, tmp_path, dtype, options, arguments):
    array = pixels(dtype)
    result = emsr_fast.super_resolve(array, **arguments)
    expected = inferred(array, tmp_path, *options)
    assert result.dtype == array.dtype == expected.dtype
    assert result.shape == (2, 3 * 61, 3 * 49)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_one_image_becomes_what_infer_writes_into_zarr(pixels, tmp_path, dtype):
    image = pixels(dtype)[0]
    result = emsr_fast.super_resolve(image, tile=32)
    assert result.shape == (3 * 61, 3 * 49)
    np.testing.assert_array_equal(result[None], inferred(image, tmp_path, "--tile", "32", suffix=".ome.zarr"))


@pytest.mark.parametrize("sides", [(1, 1), (2, 5), (3, 33)])
def test_the_smallest_images_are_what_infer_writes(pixels, tmp_path, sides):
    image = pixels("uint8")[0, : sides[0], : sides[1]]
    np.testing.assert_array_equal(emsr_fast.super_resolve(image)[None], inferred(image, tmp_path))


def test_several_blocks_and_a_loaded_network_give_the_same(stack, tmp_path):
    # 20 slices: more than a block holds
    array = tifffile.imread(stack)[:20, :40, :36]
    network = emsr_fast.load_model("emsr-x3-small")
    np.testing.assert_array_equal(emsr_fast.super_resolve(array, model=network), inferred(array, tmp_path))


def test_how_an_array_lies_in_memory_changes_nothing(pixels, tmp_path):
    array = pixels("uint16")
    expected = emsr_fast.super_resolve(array)
    swapped = emsr_fast.super_resolve(array.astype(">u2"))
    assert swapped.dtype == np.dtype("=u2")
    np.testing.assert_array_equal(swapped, expected)
    np.testing.assert_array_equal(emsr_fast.super_resolve(np.asfortranarray(array)), expected)
    lazy = zarr.create_array(tmp_path / "a.zarr", data=array)
    np.testing.assert_array_equal(emsr_fast.super_resolve(lazy), expected)
    flat = zarr.create_array(tmp_path / "flat.zarr", data=array[1])
    np.testing.assert_array_equal(emsr_fast.super_resolve(flat), emsr_fast.super_resolve(array[1]))


def test_an_array_is_not_changed_and_other_floats_become_float32(pixels):
    array = pixels("float64")[0]
    array.setflags(write=False)
    before = array.copy()
    assert emsr_fast.super_resolve(array).dtype == np.float32
    np.testing.assert_array_equal(array, before)


def test_the_pixel_size_is_checked_as_infer_checks_it(pixels, tmp_path, capsys):
    array = pixels("uint8")
    tags = {"resolution": (1e7 / 5, 1e7 / 5), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "in.tif", array, photometric="minisblack", **tags)
    assert main(["infer", str(tmp_path / "in.tif"), "-o", str(tmp_path / "out.tif")]) == 2
    refusal = capsys.readouterr().err
    with pytest.raises(UsageError, match="leave pixel_nm out to run on the pixels as they are") as raised:
        emsr_fast.super_resolve(array, pixel_nm=5)
    figures = str(raised.value).partition(";")[0]
    assert "a mismatch of 176 %, allowed is 15 %" in figures
    assert figures in refusal
    assert "--" not in str(raised.value)
    # one side alone is enough
    with pytest.raises(UsageError, match="24 x 50 nm"):
        emsr_fast.super_resolve(array, pixel_nm=(24, 50))
    said = []
    np.testing.assert_array_equal(
        emsr_fast.super_resolve(array[0], pixel_nm=13, say=said.append), emsr_fast.super_resolve(array[0])
    )
    assert any("within" in line for line in said)


def test_smaller_tiles_see_less_and_are_not_the_same_pixels(pixels):
    # or the comparisons with infer above could not tell one tiling from another
    assert (emsr_fast.super_resolve(pixels("uint8"), tile=16) != emsr_fast.super_resolve(pixels("uint8"))).any()


def test_progress_counts_every_input_pixel_once_and_can_stop_the_run(pixels):
    steps = []
    emsr_fast.super_resolve(pixels("uint8"), tile=32, progress=lambda *step: steps.append(step))
    assert len(steps) == 2 * 2 * 2
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert {total for _, total in steps} == {2 * 61 * 49} == {steps[-1][0]}

    class Enough(Exception):
        pass

    def stop(done, total):
        raise Enough

    with pytest.raises(Enough):
        emsr_fast.super_resolve(pixels("uint8"), tile=32, progress=stop)


@pytest.mark.parametrize(
    ("array", "arguments", "error", "words"),
    [
        (np.zeros((2, 2, 4, 4), np.uint8), {}, UsageError, r"shape \(2, 2, 4, 4\); give one image"),
        (np.zeros((40, 40, 3), np.uint8), {}, UsageError, "colour image"),
        ([[1, 2], [3, 4]], {}, UsageError, "is a list; give a numpy array"),
        (np.ma.masked_less(np.arange(64.0).reshape(8, 8), 5), {}, UsageError, "masked pixels"),
        (np.zeros((8, 8), np.int64), {}, VolumeError, "dtype int64"),
        (np.zeros((0, 8), np.uint8), {}, VolumeError, "no pixels"),
        (np.zeros((8, 8), np.uint16), {}, VolumeError, "is constant"),
        (np.zeros((8, 8), np.uint8), {"tile": 33}, UsageError, "`tile` is 33"),
        (np.zeros((8, 8), np.uint8), {"intensity_range": (9, 5)}, UsageError, "LO below HI"),
        (np.zeros((8, 8), np.uint8), {"intensity_range": 5}, UsageError, r"give two grey values, \(low, high\)"),
        (np.zeros((8, 8), np.uint8), {"intensity_range": "all"}, UsageError, "`intensity_range` is 'all'"),
        (np.zeros((8, 8), np.uint8), {"pixel_nm": -1}, UsageError, "`pixel_nm` is -1"),
        (np.zeros((8, 8), np.uint8), {"pixel_nm": (1, 2, 3)}, UsageError, "`pixel_nm` is"),
        (np.zeros((8, 8), np.uint8), {"model": "emsr-x9"}, CheckpointError, "emsr-x9"),
        (np.zeros((8, 8), np.uint8), {"model": 3}, UsageError, "`model` is a int"),
        (np.zeros((8, 8), np.uint8), {"device": "tpu"}, BackendError, "tpu"),
    ],
)
def test_what_cannot_be_done_is_refused(array, arguments, error, words):
    with pytest.raises(error, match=words):
        emsr_fast.super_resolve(array, **arguments)


def test_pixels_that_are_not_finite_are_refused_before_anything_is_computed(pixels):
    array = pixels("float32")
    array[1, 4, 7] = np.nan
    with pytest.raises(VolumeError, match="slice 1 of the array has 1 NaN or infinite"):
        emsr_fast.super_resolve(array, progress=lambda *step: pytest.fail("a tile was computed"))


def test_marks_of_absent_data_are_refused_and_hot_pixels_bounded_with_a_warning(pixels, tmp_path):
    array = pixels("float32")
    array[1, 4, 7] = -3.4e38
    with pytest.raises(VolumeError, match="slice 1 of the array has 1 pixel"):
        emsr_fast.super_resolve(array, progress=lambda *step: pytest.fail("a tile was computed"))
    array[1, 4, 7] = 1e6
    with pytest.warns(UserWarning, match=r"1 input pixel below"):
        result = emsr_fast.super_resolve(array)
    np.testing.assert_array_equal(result, inferred(array, tmp_path))


def test_a_result_that_no_memory_holds_is_refused(pixels):
    whole = np.broadcast_to(pixels("uint8")[0], (10**9, 61, 49))
    with pytest.raises(VolumeError, match="does not fit into memory"):
        emsr_fast.super_resolve(whole)

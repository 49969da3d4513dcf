"""Resampling of LR pixels: exact geometry, independent of tiles, and refused where nobody chose it."""

import json
import math

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from emsr_fast.cli import main
from emsr_fast.errors import UsageError
from emsr_fast.io.pixel_size import RelabelledSource, fit_to_model, parse_input_voxel
from emsr_fast.io.registry import open_source
from emsr_fast.io.resample import ResampledSource
from streaming import ArraySource

EVERYTHING = slice(None)
TRAINED = [24.0, 30.0, 210.0]


VOXEL = (40.0, 30.0, 30.0)


def noise(shape, dtype=np.float32):
    return (np.random.default_rng(0).random(shape) * 250).astype(dtype)


def whole(source):
    return source.read(0, EVERYTHING, EVERYTHING)


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_whole_factors_are_plain_binning(factor):
    pixels = noise((1, 10 * factor, 7 * factor))
    expected = pixels[0].astype(np.float64).reshape(10, factor, 7, factor).mean(axis=(1, 3))
    found = whole(ResampledSource(ArraySource(pixels, VOXEL), (30.0, 30.0), 30.0 * factor))
    assert np.abs(found - expected).max() <= 1e-4


@pytest.mark.parametrize(("parts", "joined"), [(3, 5), (3, 10), (7, 8), (9, 10)])
def test_coarser_pixels_are_means_over_their_area(parts, joined):
    # each source pixel cut into equal parts on its slope, then as many joined: the same areas, without any weights
    pixels = noise((1, 10 * joined, 7 * joined)).astype(np.float64)

    def cut(image):
        slope = np.gradient(np.pad(image, ((1, 1), (0, 0)), mode="edge"), axis=0)[1:-1]
        places = (np.arange(parts) + 0.5) / parts - 0.5
        return (image[:, None] + slope[:, None] * places[:, None]).reshape(-1, image.shape[1])

    fine = cut(cut(pixels[0]).T).T
    expected = fine.reshape(10 * parts, joined, 7 * parts, joined).mean(axis=(1, 3))
    found = whole(ResampledSource(ArraySource(pixels, VOXEL), (30.0, 30.0), 30.0 * joined / parts))
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-9
    assert found.mean() == pytest.approx(pixels.mean(), rel=1e-12)


@pytest.mark.parametrize("target", [20.0, 27.0, 33.0, 100.0])
def test_a_ramp_keeps_its_place(target):
    rows, cols = np.mgrid[:60, :80].astype(np.float32)
    found = whole(ResampledSource(ArraySource((rows + 2 * cols)[None], VOXEL), (30.0, 30.0), target))
    factor = target / 30
    centres = [(np.arange(side) + 0.5) * factor - 0.5 for side in found.shape]
    inside = slice(3, -3)
    assert np.abs(found - (centres[0][:, None] + 2 * centres[1]))[inside, inside].max() <= 1e-4


@pytest.mark.parametrize("target", [20.0, 29.0])
def test_finer_pixels_are_exact_on_parabolas(target):
    x = np.arange(50.0)
    pixels = np.tile((x - 20) ** 2, (50, 1))[None]
    found = whole(ResampledSource(ArraySource(pixels, VOXEL), (30.0, 30.0), target))
    centres = (np.arange(found.shape[1]) + 0.5) * target / 30 - 0.5
    assert np.abs(found - (centres - 20) ** 2)[:, 4:-4].max() <= 1e-9


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    size_y=st.floats(4, 200),
    size_x=st.floats(4, 200),
    dtype=st.sampled_from([np.uint8, np.int16, np.float32]),
    data=st.data(),
)
def test_a_pixel_does_not_depend_on_what_is_read_with_it(height, width, size_y, size_x, dtype, data):
    source = ResampledSource(ArraySource(noise((1, height, width), dtype), VOXEL), (size_y, size_x), 30.0)
    image = whole(source)
    assert image.shape == source.shape[1:]
    assert image.dtype == dtype
    for side, length, size in zip(image.shape, (height, width), (size_y, size_x), strict=True):
        # all of the source is covered, and no pixel lies outside it
        assert side * 30 / size >= length - 1e-2 * 30 / size
        assert side == 1 or (side - 1) * 30 / size < length
    spans = []
    for side in image.shape:
        start = data.draw(st.integers(0, side - 1))
        spans.append(slice(start, data.draw(st.integers(start + 1, side))))
    np.testing.assert_array_equal(source.read(0, *spans), image[tuple(spans)])


def test_large_slices_are_done_in_bands_with_the_same_result(monkeypatch):
    source = ResampledSource(ArraySource(noise((1, 90, 70)), VOXEL), (30.0, 30.0), 47.0)
    at_once = whole(source)
    monkeypatch.setattr("emsr_fast.io.resample._BAND_PIXELS", 200)
    np.testing.assert_array_equal(whole(source), at_once)


def test_flat_stays_flat_and_integers_are_clipped():
    for target in (11.0, 30.0, 77.0):
        assert (
            whole(ResampledSource(ArraySource(np.full((1, 20, 20), 200, np.uint8), VOXEL), (30.0, 25.0), target)) == 200
        ).all()
    edge = np.zeros((1, 20, 20), np.uint8)
    edge[..., 10:] = 255
    found = whole(ResampledSource(ArraySource(edge, VOXEL), (30.0, 30.0), 20.0))  # cubic overshoots at an edge
    assert {0, 255} <= set(found.ravel().tolist())
    assert (found[:, :10] == 0).all()


def fitted(voxel, choice=None, trained=TRAINED):
    said = []
    source = fit_to_model(
        ArraySource(noise((2, 40, 50)), voxel), trained, "m", parse_input_voxel(choice), said.append
    )  # fmt: skip
    return source, " ".join(said)


@pytest.mark.parametrize("voxel", [(40.0, 10.0, 10.0), (None, 50.0, 50.0), (40.0, 24.0, 30.0), (40.0, None, 50.0)])
def test_a_mismatch_is_refused_with_its_figures_unless_chosen(voxel):
    with pytest.raises(UsageError, match=r"trained on input pixels of 24, 30, 210 nm: a mismatch of \d+ %"):
        fitted(voxel)
    source, said = fitted(voxel, "ignore")
    assert isinstance(source, ArraySource)
    assert "ignored as asked" in said


def test_the_choice_that_discards_detail_is_advised_last_and_each_says_its_cost():
    with pytest.raises(UsageError) as refused:
        fitted((40.0, 13.8, 13.8))
    _, _, choices = str(refused.value).partition("choose: ")
    assert choices.startswith("`input_voxel=ignore` runs on the pixels as they are: keeps their detail")
    last = choices.split("; ")[-1]
    assert last.startswith(
        "`input_voxel=file` last: resampling from 13.8 x 13.8 nm to 24 nm discards detail: 0.33 times"
    )
    assert "worse than bicubic" in last
    # one axis is enough
    with pytest.raises(UsageError, match=r"; `input_voxel=file` last: resampling from 20 x 50 nm to 30 nm discards"):
        fitted((40.0, 20.0, 50.0))


def test_interpolating_to_finer_pixels_loses_nothing_and_says_how_many_there_will_be():
    with pytest.raises(
        UsageError, match=r"choose: `input_voxel=file` interpolates to 30 nm: 2\.8 times the pixels"
    ) as one:
        fitted((40.0, 50.0, 50.0))
    assert "discards" not in str(one.value)


def test_a_size_stated_in_part_cannot_be_resampled_from():
    with pytest.raises(UsageError, match="choose: `input_voxel=ignore`") as refused:
        fitted((40.0, None, 50.0))
    assert "input_voxel=file" not in str(refused.value)


@pytest.mark.parametrize(
    ("voxel", "choice", "warned"),
    [(13.8, "file", True), (50.0, "10", True), (50.0, "20,50", True), (50.0, "file", False), (30.0, "file", False)],
)
def test_resampling_to_coarser_pixels_warns(voxel, choice, warned):
    _, said = fitted((40.0, voxel, voxel), choice)
    assert ("warning resampling from" in said and "`input_voxel=ignore` keeps the detail" in said) == warned


@pytest.mark.parametrize(
    ("voxel", "words"), [((40.0, 33.0, 33.0), "within 10.0 %"), ((None, None, None), "pixel size is unknown")]
)
def test_what_is_near_or_unknown_is_noted_and_left_alone(voxel, words):
    source, said = fitted(voxel)
    assert isinstance(source, ArraySource)
    assert words in said


def test_nothing_is_said_of_a_model_that_states_no_size():
    assert fitted((40.0, 10.0, 10.0), trained=[])[1] == ""
    with pytest.raises(UsageError, match="does not state the pixel size"):
        fitted((40.0, 10.0, 10.0), "50", trained=[])


@pytest.mark.parametrize(
    ("voxel", "choice", "shape"),
    [
        ((40.0, 50.0, 50.0), "file", (2, 67, 84)),
        ((None, None, None), "50", (2, 67, 84)),
        ((40.0, 7.0, 7.0), "10", (2, 17, 21)),  # to the nearest, 24 nm
        ((40.0, None, None), "60,15", (2, 80, 25)),
    ],
)
def test_pixels_become_those_of_the_training(voxel, choice, shape):
    source, said = fitted(voxel, choice)
    assert isinstance(source, ResampledSource)
    target = 24.0 if choice == "10" else 30.0
    assert source.info.voxel_size_nm == (voxel[0], target, target)
    assert source.shape == shape
    assert "resampled from" in said
    assert source.read(1, EVERYTHING, EVERYTHING).shape == shape[1:]


def test_a_stated_size_that_fits_only_relabels():
    source, said = fitted((40.0, 3000.0, 3000.0), "30")
    assert isinstance(source, RelabelledSource)
    assert source.info.voxel_size_nm == (40, 30, 30)
    assert "not resampled" in said


@pytest.mark.parametrize("text", ["", "a", "0", "-5", "1,2,3", "nan", "inf", "50nm"])
def test_other_words_are_refused(text):
    with pytest.raises(UsageError, match="`input_voxel` is"):
        parse_input_voxel(text)


def test_the_file_must_state_what_is_taken_from_it():
    with pytest.raises(UsageError, match="`input_voxel=50`"):
        fitted((None, None, None), "file")


def test_infer_resamples_and_writes_the_voxel_size_it_made(tmp_path, examples, capsys):
    pixels = tifffile.imread(examples / "flyem_fibsem_10nm_48x192x192.tif", key=range(2))[:, :40, :36]
    sizes = {f"PhysicalSize{axis}": size for axis, size in (("X", 0.05), ("Y", 0.05), ("Z", 0.04))}
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, photometric="minisblack", metadata={"axes": "ZYX", **sizes})
    command = ["infer", str(tmp_path / "a.ome.tif"), "-o", str(tmp_path / "o.ome.tif"), "--json"]
    assert main(command) == 2
    assert "a mismatch of 67 %" in capsys.readouterr().err
    assert main([*command, "--input-voxel", "file"]) == 0
    done = json.loads(capsys.readouterr().out)
    side_y, side_x = (math.ceil(side * 50 / 30) for side in (40, 36))
    assert done["shape"] == [2, 3 * side_y, 3 * side_x]
    assert done["settings"]["resampled"] == {
        "from_nm": [50, 50], "to_nm": 30, "filter": "cubic convolution", "first_centre_nm": [-10, -10],
    }  # fmt: skip
    with open_source(tmp_path / "o.ome.tif") as source:
        assert source.info.voxel_size_nm == pytest.approx((40, 10, 10))
    assert main([*command[:3], str(tmp_path / "o.zarr"), "--input-voxel", "file"]) == 0
    group = zarr.open_group(tmp_path / "o.zarr", mode="r")
    scale, translation = group.attrs["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    # the outer edges of input and output meet, (0, -25, -25) nm from the centre of the input's first pixel
    edges = np.array(translation["translation"]) - np.array(scale["scale"]) / 2
    assert edges == pytest.approx([-20, -25, -25])


@pytest.mark.parametrize("size", ["1e-9", "1e9", "30,1e9"])
def test_a_size_in_another_unit_is_refused(size):
    with pytest.raises(UsageError, match=r"input pixels of 1e[-+]09 nm would be resampled .* a factor above 1000"):
        fitted((None, 40, 40), size)


def test_a_size_that_the_model_was_trained_on_is_said_to_be_one():
    _, said = fitted((40.0, 30.0, 30.0))
    assert "30 nm is a size that" in said
    assert "%" not in said

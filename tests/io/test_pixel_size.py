"""The input's pixel size beside that of the model's training: noted, refused, corrected, or resampled."""

import json
import math

import numpy as np
import pytest
import tifffile
import zarr

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


@pytest.mark.parametrize("nm", [12.0, 13.8, 15.0, 45.0, 96.0, 110.0])
def test_of_a_range_every_size_is_taken(nm):
    source, said = fitted((40.0, nm, nm), trained=[(13.8, 96.0), 300.0])
    assert isinstance(source, ArraySource)
    within = 13.8 <= nm <= 96
    assert (
        f"{nm:g} nm is a size that m was trained on" if within else "13.8 to 96, 300 nm; the input is within"
    ) in said


@pytest.mark.parametrize(("nm", "nearest"), [(11.9, 13.8), (111.0, 96.0), (250.0, 300.0)])
def test_what_lies_outside_a_range_is_refused_and_resampled_to_its_end(nm, nearest):
    trained = [(13.8, 96.0), 300.0]
    with pytest.raises(UsageError, match=rf"13\.8 to 96, 300 nm: a mismatch of \d+ %.*{nearest:g} nm"):
        fitted((40.0, nm, nm), trained=trained)
    source, _ = fitted((40.0, nm, nm), "file", trained)
    assert source.info.voxel_size_nm == (40, nearest, nearest)


def test_pixels_that_are_not_square_become_so_inside_a_range():
    source, _ = fitted((40.0, 20.0, 45.0), "file", [(13.8, 96.0)])
    assert source.info.voxel_size_nm == (40, 30, 30)
    # one unknown side is judged by the other
    assert "50 nm is a size that m was trained on" in fitted((40.0, None, 50.0), trained=[(13.8, 96.0)])[1]


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
    sizes = {f"PhysicalSize{axis}": size for axis, size in (("X", 0.005), ("Y", 0.005), ("Z", 0.04))}
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, photometric="minisblack", metadata={"axes": "ZYX", **sizes})
    command = ["infer", str(tmp_path / "a.ome.tif"), "-o", str(tmp_path / "o.ome.tif"), "--json"]
    assert main(command) == 2
    assert "a mismatch of 176 %" in capsys.readouterr().err
    assert main([*command, "--input-voxel", "file"]) == 0
    done = json.loads(capsys.readouterr().out)
    side_y, side_x = (math.ceil(side * 5 / 13.8) for side in (40, 36))
    assert done["shape"] == [2, 3 * side_y, 3 * side_x]
    assert done["settings"]["resampled"] == {
        "from_nm": [5, 5], "to_nm": 13.8, "filter": "area mean", "first_centre_nm": [pytest.approx(4.4)] * 2,
    }  # fmt: skip
    with open_source(tmp_path / "o.ome.tif") as source:
        assert source.info.voxel_size_nm == pytest.approx((40, 4.6, 4.6))
    assert main([*command[:3], str(tmp_path / "o.zarr"), "--input-voxel", "file"]) == 0
    group = zarr.open_group(tmp_path / "o.zarr", mode="r")
    scale, translation = group.attrs["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    # the outer edges of input and output meet, (0, -2.5, -2.5) nm from the centre of the input's first pixel
    edges = np.array(translation["translation"]) - np.array(scale["scale"]) / 2
    assert edges == pytest.approx([-20, -2.5, -2.5])


@pytest.mark.parametrize("size", ["1e-9", "1e9", "30,1e9"])
def test_a_size_in_another_unit_is_refused(size):
    with pytest.raises(UsageError, match=r"input pixels of 1e[-+]09 nm would be resampled .* a factor above 1000"):
        fitted((None, 40, 40), size)


def test_a_size_that_the_model_was_trained_on_is_said_to_be_one():
    _, said = fitted((40.0, 30.0, 30.0))
    assert "30 nm is a size that" in said
    assert "%" not in said

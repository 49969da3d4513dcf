"""TIFF files with several images: each has the pixel size and the instrument that its own page states."""

import json

import numpy as np
import pytest
import tifffile

from emsr_fast.cli import main
from emsr_fast.io.registry import open_source
from vendor_tiffs import fei_ini, tvips_tag

FIRST = (np.arange(60 * 80) % 251).astype("u1").reshape(60, 80)
PER_CM_NM = 1e7


def text_tag(code, text):
    return (code, 2, len(text) + 1, text, True)


def dm_tags(step):
    return [text_tag(65003, "nm"), text_tag(65004, "nm"), (65009, 11, 1, step, True), (65010, 11, 1, step, True)]


def two_images(path, second, first_options, second_options):
    with tifffile.TiffWriter(path) as file:
        file.write(FIRST, metadata=None, **first_options)
        file.write(second, metadata=None, **second_options)
    return path


def resolution(y_nm, x_nm):
    return {"resolution": (PER_CM_NM / x_nm, PER_CM_NM / y_nm), "resolutionunit": 3}


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (resolution(10, 10), resolution(30, 20), ((10, 10), (30, 20))),
        (resolution(10, 10), {}, ((10, 10), (None, None))),
        ({"extratags": dm_tags(0.5)}, {"extratags": dm_tags(0.25)}, ((0.5, 0.5), (0.25, 0.25))),
        (
            {"extratags": [text_tag(34682, fei_ini(rows=60, columns=80))]},
            {"extratags": [text_tag(34682, fei_ini(size="7.0e-9", rows=60, columns=80))]},
            ((5, 4), (5, 7)),
        ),
    ],
    ids=["resolution", "resolution of the first alone", "DigitalMicrograph", "FEI"],
)
def test_each_image_has_the_pixel_size_of_its_own_page(tmp_path, first, second, expected):
    path = two_images(tmp_path / "a.tif", FIRST.astype("u2"), first, second)
    for key, size in enumerate(expected):
        with open_source(path, str(key)) as source:
            assert source.info.voxel_size_nm[1:] == size


@pytest.mark.parametrize("marked", [True, False])
def test_half_as_large_copies_are_said_and_can_be_chosen(tmp_path, capsys, marked):
    path = two_images(tmp_path / "a.tif", FIRST[::2, ::2], resolution(10, 10), {"subfiletype": int(marked)})
    assert main(["inspect", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["shape"] == [1, 60, 80]
    assert any("1 smaller copy of the image left out" in note for note in told["notes"])
    with open_source(path, "1") as source:
        np.testing.assert_array_equal(source.read(0, slice(None), slice(None)), FIRST[::2, ::2])


def test_a_camera_that_states_itself_on_the_second_page_is_named_there(tmp_path):
    path = two_images(
        tmp_path / "a.tif", FIRST.astype("u2"), {}, {"extratags": [(37706, 1, len(tag := tvips_tag()), tag, True)]}
    )
    with open_source(path, "1") as source:
        assert source.info.instrument.startswith("TVIPS")
    with open_source(path, "0") as source:
        assert source.info.instrument is None


def test_a_metre_is_no_pixel(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", FIRST, metadata=None, extratags=[text_tag(34682, fei_ini(size="1"))])
    with open_source(tmp_path / "a.tif") as source:
        assert source.info.voxel_size_nm == (None, None, None)
        assert "FEI's TIFF tag 34682 ignored: 1e+09 nm is no pixel of a microscope" in source.info.notes
